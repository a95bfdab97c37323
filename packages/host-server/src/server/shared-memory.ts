import { readSync, writeSync } from 'node:fs';
import {
  dataRanges,
  fileLength,
  mapShared,
  punchHole,
  reserveHugePages,
  reserveRange,
  setFileLength,
} from '@ivshmem/linux/memory';
import { STATE_TABLE_SIZE } from '@ivshmem/transport/protocol';
import type { KeptDescriptors } from './kept-descriptors.ts';
import {
  closeBacking,
  type MemoryBacking,
  openMemoryBacking,
  restoreMemoryBacking,
  unlinkBacking,
} from './memory-backing.ts';
import type { SharedMemorySource } from './options.ts';

const ZEROS = new Uint8Array(1 << 20);

/** The shared memory of a server. */
export interface SharedMemory {
  /** The descriptor sent to each peer. */
  readonly fd: number;
  /** In bytes; at least one huge page, if it consists of these. */
  readonly size: number;
  /** For the log, such as `sealed memfd`. */
  readonly description: string;
  /** A peer's entry in the state table, u32. */
  state(peer: number): number;
  /** Sets a peer's entry in the state table to 0. */
  clearState(peer: number): void;
  /**
   * Sets `length` bytes from `offset` to zero; both are multiples of 4096. Reserved memory stays reserved, since a peer
   * that accesses missing memory is killed by SIGBUS. Throws SystemCallError, or Error of `node:fs`.
   */
  clear(offset: number, length: number): void;
  /** What a descriptor store keeps of it, by name. */
  readonly kept: ReadonlyMap<string, number>;
  /** Closes the descriptors and, unless the next process continues with the memory, removes the name if there is one. */
  close(options?: { isKept: boolean }): void;
}

/**
 * Creates zeroed shared memory. A memfd allocates pages as they are used; files on a file system, which may become full,
 * are reserved at once. Throws SystemCallError, or Error of `node:fs`, and leaves nothing behind.
 */
export function createSharedMemory(source: SharedMemorySource, wanted: number): SharedMemory {
  const backing = openMemoryBacking(source, wanted);
  const size = Math.max(wanted, backing.hugePageSize);
  try {
    if (!backing.anonymous) reserve(backing, size);
    return sharedMemory(source, backing, size);
  } catch (error) {
    unlinkBacking(source, backing);
    closeBacking(backing);
    throw error;
  }
}

/**
 * Continues with the memory of an earlier process: its {@link SharedMemory.kept}. Throws Error with the reason if that is something
 * else.
 */
export function restoreSharedMemory(
  source: SharedMemorySource,
  wanted: number,
  kept: Pick<KeptDescriptors, 'take' | 'remove'>,
): SharedMemory {
  const backing = restoreMemoryBacking(source, wanted, kept);
  try {
    return sharedMemory(source, backing, Math.max(wanted, backing.hugePageSize));
  } catch (error) {
    closeBacking(backing);
    throw error;
  }
}

function sharedMemory(source: SharedMemorySource, backing: MemoryBacking, size: number): SharedMemory {
  const { fd, locks, hugePageSize, sealed, description } = backing;
  const table = sealed
    ? mappedTable(fd, Math.max(STATE_TABLE_SIZE, hugePageSize))
    : fileTable(fd, hugePageSize);
  /** Clients can truncate memory that is not sealed. What they cut off is restored, as zeros. */
  const restoreLength = () => {
    if (sealed || fileLength(fd) >= size) return;
    if (backing.anonymous) setFileLength(fd, size, description);
    else reserve(backing, size);
  };
  return {
    fd,
    size,
    description,
    kept: new Map([['memory', fd], ...locks]),
    state: table.state,
    clearState(peer) {
      restoreLength();
      table.clearState(peer);
    },
    clear(offset, length) {
      if (length === 0) return;
      restoreLength();
      const end = offset + length;
      if (hugePageSize > 0) overwriteMapped(fd, offset, end, hugePageSize);
      else if (!backing.anonymous || !punchHole(fd, offset, length)) {
        for (const { from, to } of dataRanges(fd, offset, end)) overwrite(fd, from, to);
      }
    },
    close({ isKept } = { isKept: false }) {
      table.close();
      if (!isKept) unlinkBacking(source, backing);
      closeBacking(backing);
    },
  };
}

/** Sets the length of a file to `size` bytes and allocates all of its pages or disk blocks. */
function reserve({ fd, hugePageSize, description }: MemoryBacking, size: number): void {
  setFileLength(fd, size, description);
  if (hugePageSize > 0) reserveHugePages(fd, 0, size, hugePageSize, description);
  else if (!reserveRange(fd, 0, size, description)) overwrite(fd, 0, size);
}

interface StateTable {
  state(peer: number): number;
  clearState(peer: number): void;
  close(): void;
}

/** The state table of memory that cannot be truncated. */
function mappedTable(fd: number, length: number): StateTable {
  const mapping = mapShared(fd, length, { write: true, subject: 'state table' });
  const states = new Uint32Array(mapping.buffer, 0, STATE_TABLE_SIZE / 4);
  return {
    state: (peer) => Atomics.load(states, peer),
    clearState(peer) {
      Atomics.store(states, peer, 0);
    },
    close: () => mapping.close(),
  };
}

/**
 * The state table of a file that any client can truncate at any time. An access to a mapping past the end of the file
 * would kill the server with SIGBUS; read(2) and write(2) are merely short. hugetlbfs has no write(2).
 */
function fileTable(fd: number, hugePageSize: number): StateTable {
  const entry = new Uint32Array(1);
  return {
    state(peer) {
      entry[0] = 0;
      readSync(fd, entry, 0, 4, peer * 4);
      return entry[0];
    },
    clearState(peer) {
      if (hugePageSize === 0) {
        writeSync(fd, ZEROS, 0, 4, peer * 4);
        return;
      }
      using mapping = mapShared(fd, hugePageSize, { write: true, subject: 'state table' });
      Atomics.store(new Uint32Array(mapping.buffer), peer, 0);
    },
    close() {},
  };
}

function overwrite(fd: number, from: number, to: number): void {
  for (let at = from; at < to; ) at += writeSync(fd, ZEROS, 0, Math.min(ZEROS.length, to - at), at);
}

/** Zeroes a range of a file on hugetlbfs, page by page. Punching a hole would drop the reservation of its pages. */
function overwriteMapped(fd: number, offset: number, end: number, pageSize: number): void {
  for (let page = Math.floor(offset / pageSize) * pageSize; page < end; page += pageSize) {
    const from = Math.max(page, offset);
    const to = Math.min(page + pageSize, end);
    using mapping = mapShared(fd, pageSize, { offset: page, write: true, subject: 'huge page' });
    new Uint8Array(mapping.buffer, from - page, to - from).fill(0);
  }
}
