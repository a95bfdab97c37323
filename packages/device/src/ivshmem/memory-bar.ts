import { PAGE_SIZE } from '@ivshmem/linux/memory';
import type { HostPort, Section } from '@ivshmem/transport';
import { type MemoryLayout, STATE_TABLE_SIZE } from '@ivshmem/transport/protocol';

/** A part of BAR 2 that a VMM may map, in bytes; multiples of the host's page size. */
export interface MappedArea {
  readonly offset: number;
  readonly size: number;
}

/**
 * The areas of BAR 2 that the VMM of peer `id` may map, always for reading and writing, since vfio-user has no other
 * way; the rest is trapped. The state table is trapped, so only the device writes it. With `isolate`, the output sections of
 * other peers are trapped; without, the guest could write them. If one area is not made of whole pages of the host, QEMU
 * maps none of them, so a page that an area shares with a trapped part is trapped. `pageSize` is in bytes, a power of
 * two.
 */
export function mappedAreas(
  layout: MemoryLayout,
  id: number,
  isolate: boolean,
  pageSize: number = PAGE_SIZE,
): MappedArea[] {
  const { readWriteOffset, outputOffset, outputSectionSize, size } = layout;
  const own = outputOffset + id * outputSectionSize;
  const ranges: [number, number][] = isolate
    ? [
        [readWriteOffset, outputOffset],
        [own, own + outputSectionSize],
      ]
    : [[readWriteOffset, size]];
  // Adjacent ranges are one area: they may share a page.
  if (ranges.length === 2 && ranges[0]![1] === ranges[1]![0])
    ranges.splice(0, 2, [readWriteOffset, ranges[1]![1]]);
  const areas: MappedArea[] = [];
  for (const [begin, end] of ranges) {
    const offset = Math.ceil(begin / pageSize) * pageSize;
    const length = Math.floor(end / pageSize) * pageSize - offset;
    if (length > 0) areas.push({ offset, size: length });
  }
  return areas;
}

/** A section with a view for each width of an access. */
interface Views {
  readonly bytes: Uint8Array;
  /** By log2 of the width. */
  readonly words: readonly [Uint8Array, Uint16Array, Uint32Array, BigUint64Array];
}

/** What lies at an offset of BAR 2. */
interface Part {
  readonly offset: number;
  readonly end: number;
  /** Null beyond the end of the memory. */
  readonly section: Section | null;
  readonly writable: boolean;
}

/**
 * BAR 2 for trapped accesses, with the rights of the specification: state table and sections of other peers are
 * read-only. Aligned accesses of 1, 2, 4 or 8 bytes are single loads and stores, as they are in mapped memory.
 */
export class MemoryBar {
  readonly #port: HostPort;
  readonly #views = new Map<Section, Views>();

  constructor(port: HostPort) {
    this.#port = port;
  }

  /** Copies bytes from `offset`; zeros beyond the memory's end. Throws SystemCallError if a section cannot be mapped. */
  read(offset: number, into: Uint8Array): void {
    for (let done = 0; done < into.length; ) {
      const at = offset + done;
      if (at < STATE_TABLE_SIZE) {
        done += this.#readStateTable(at, into.subarray(done));
        continue;
      }
      const { offset: start, end, section } = this.#partAt(at);
      const piece = into.subarray(done, done + end - at);
      if (section === null) piece.fill(0);
      else copyOut(this.#viewsOf(section), at - start, piece);
      done += piece.length;
    }
  }

  /** Writes the bytes that this peer may write, and ignores the others. Throws SystemCallError if a section cannot be mapped. */
  write(offset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const at = offset + done;
      const { offset: start, end, section, writable } = this.#partAt(at);
      const piece = bytes.subarray(done, done + end - at);
      if (writable && section !== null) copyIn(this.#viewsOf(section), at - start, piece);
      done += piece.length;
    }
  }

  /** Each entry is loaded once. Returns the number of bytes that lie in the state table. */
  #readStateTable(offset: number, into: Uint8Array): number {
    const length = Math.min(into.length, STATE_TABLE_SIZE - offset);
    for (let done = 0; done < length; ) {
      const at = offset + done;
      const peer = at >> 2;
      let word = peer < this.#port.maxPeers ? this.#port.peerState(peer) : 0;
      word >>>= (at & 3) * 8;
      for (let i = at & 3; i < 4 && done < length; i++, done++, word >>>= 8) into[done] = word & 0xff;
    }
    return length;
  }

  #partAt(at: number): Part {
    const { readWriteOffset, outputOffset, outputSectionSize, size } = this.#port.layout;
    if (at < readWriteOffset) return { offset: 0, end: readWriteOffset, section: null, writable: false };
    if (at < outputOffset) {
      return { offset: readWriteOffset, end: outputOffset, section: this.#port.readWrite, writable: true };
    }
    if (at >= size) return { offset: size, end: Number.MAX_SAFE_INTEGER, section: null, writable: false };
    const peer = Math.floor((at - outputOffset) / outputSectionSize);
    const offset = outputOffset + peer * outputSectionSize;
    const own = peer === this.#port.id;
    return { offset, end: offset + outputSectionSize, section: this.#port.input(peer), writable: own };
  }

  #viewsOf(section: Section): Views {
    let views = this.#views.get(section);
    if (views === undefined) {
      const { buffer } = section;
      const bytes = new Uint8Array(buffer);
      views = {
        bytes,
        words: [bytes, new Uint16Array(buffer), new Uint32Array(buffer), new BigUint64Array(buffer)],
      };
      this.#views.set(section, views);
    }
    return views;
  }
}

/** log2 of the width of an access that is a single load or store; -1 for others. */
function widthOf(offset: number, length: number): number {
  const width = [1, 2, 4, 8].indexOf(length);
  return width !== -1 && offset % length === 0 ? width : -1;
}

function copyOut(views: Views, offset: number, into: Uint8Array): void {
  const width = widthOf(offset, into.length);
  if (width === -1) {
    into.set(views.bytes.subarray(offset, offset + into.length));
    return;
  }
  let word = BigInt(views.words[width]![offset >> width]!);
  for (let i = 0; i < into.length; i++, word >>= 8n) into[i] = Number(word & 0xffn);
}

function copyIn(views: Views, offset: number, bytes: Uint8Array): void {
  const width = widthOf(offset, bytes.length);
  if (width === -1) {
    views.bytes.set(bytes, offset);
    return;
  }
  let word = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) word = (word << 8n) | BigInt(bytes[i]!);
  if (width === 3) views.words[3][offset >> 3] = word;
  else views.words[width as 0 | 1 | 2][offset >> width] = Number(word);
}
