import { fstatSync } from 'node:fs';
import { closeFd } from '@ivshmem/linux';
import {
  dataRanges,
  fileLength,
  isRegularFile,
  type Mapping,
  mapShared,
  PAGE_SIZE,
  punchHole,
} from '@ivshmem/linux/memory';
import {
  LayoutError,
  type MemoryLayout,
  memoryLayout,
  type Section,
  STATE_TABLE_SIZE,
} from '../protocol/memory-layout.ts';
import { isSealed } from './server-trust.ts';

/**
 * The shared memory region as one peer may use it: state table and read/write section writable, this peer's output
 * section writable, the others read-only. Each section is mapped when it is first used.
 * Source: specification, "Shared Memory Region Layout".
 */
export class SharedMemory {
  readonly layout: MemoryLayout;
  /** One u32 for each peer; a peer writes its own entry only. After {@link close}, a table of zeros. */
  stateTable: Uint32Array;
  /** The file; it stays this object's. */
  readonly fd: number;
  /** Length in bytes of the part of this peer's output section, from its beginning, that may not have been zero at first. */
  readonly dirtyOutput: number;
  readonly #id: number;
  readonly #outputs: (Mapping | undefined)[] = [];
  readonly #mappings: Mapping[] = [];
  #readWrite: Mapping | undefined;
  #open = true;

  /**
   * Takes over `fd`, a file that holds the region for `maxPeers` peers with output sections of `outputSectionSize` bytes, for
   * peer `id`. Its length is checked, since a read beyond it would kill the process. Throws {@link LayoutError} if
   * it is no regular file or too short, SystemCallError if it cannot be mapped; `fd` is closed in either case.
   */
  constructor(fd: number, id: number, maxPeers: number, outputSectionSize: number) {
    this.fd = fd;
    this.#id = id;
    try {
      if (!isRegularFile(fd)) throw new LayoutError('the shared memory is no regular file');
      const length = fileLength(fd);
      this.layout = memoryLayout(length, maxPeers, outputSectionSize, PAGE_SIZE);
      if (!Number.isInteger(id) || id < 0 || id >= maxPeers) {
        throw new LayoutError(`peer ${id}: only ${maxPeers} peers are possible`);
      }
      this.dirtyOutput = dirtyBytes(fd, this.layout.outputOffset + id * outputSectionSize, outputSectionSize);
      this.stateTable = new Uint32Array(this.#map(0, STATE_TABLE_SIZE, true).buffer, 0, maxPeers);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** The common read/write section; null if its size is zero. Throws SystemCallError if it cannot be mapped. */
  get readWrite(): Section | null {
    const { readWriteOffset, readWriteSize } = this.layout;
    if (readWriteSize === 0) return null;
    this.#checkOpen();
    this.#readWrite ??= this.#map(readWriteOffset, readWriteSize, true);
    return this.#readWrite;
  }

  /** The output section of a peer; null if the size of output sections is zero. Throws RangeError. */
  output(peer: number): Section | null {
    const { maxPeers, outputSectionSize, outputOffset } = this.layout;
    if (!Number.isInteger(peer) || peer < 0 || peer >= maxPeers) {
      throw new RangeError(`peer ${peer}: only ${maxPeers} peers are possible`);
    }
    if (outputSectionSize === 0) return null;
    this.#checkOpen();
    const offset = outputOffset + peer * outputSectionSize;
    this.#outputs[peer] ??= this.#map(offset, outputSectionSize, peer === this.#id);
    return this.#outputs[peer];
  }

  /** Sets this peer's output section to zero, unless it is known to be zero. Throws SystemCallError. */
  clearOutput(): void {
    const { outputOffset, outputSectionSize } = this.layout;
    const begin = outputOffset + this.#id * outputSectionSize;
    const dirty = [...dataRanges(this.fd, begin, begin + outputSectionSize)];
    if (dirty.length === 0) return;
    if (mayHaveHoles(this.fd) && punchHole(this.fd, begin, outputSectionSize)) return;
    const bytes = new Uint8Array(this.output(this.#id)!.buffer);
    for (const { from, to } of dirty) bytes.fill(0, from - begin, to - begin);
  }

  #map(offset: number, length: number, write: boolean): Mapping {
    const mapping = mapShared(this.fd, length, { offset, write, subject: 'shared memory' });
    this.#mappings.push(mapping);
    return mapping;
  }

  #checkOpen(): void {
    if (!this.#open) throw new Error('the shared memory was closed');
  }

  /** Unmaps everything: no view of any section may be used any more. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.stateTable = new Uint32Array(this.stateTable?.length ?? 0);
    for (const mapping of this.#mappings) mapping.close();
    closeFd(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** How many bytes of a file, counted from `offset`, may be other than zero: the file system says so. */
function dirtyBytes(fd: number, offset: number, length: number): number {
  let dirty = 0;
  for (const { to } of dataRanges(fd, offset, offset + length)) dirty = to - offset;
  return dirty;
}

/**
 * Whether the memory of a punched hole is certain to be available again. It is not on a disk file system, which may be
 * full by then, nor with huge pages, since the hole releases their reservation. An access without memory kills the
 * process.
 */
function mayHaveHoles(fd: number): boolean {
  return isSealed(fd) && fstatSync(fd).blksize === PAGE_SIZE;
}
