import { readSync, writeSync } from 'node:fs';
import { closeFd } from '@ivshmem/linux';
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
import { type MemoryBacking, openMemoryBacking } from './memory-backing.ts';
import type { SharedMemorySource } from './options.ts';

const ZEROS = new Uint8Array(1 << 20);

/** The memory that all peers share, as the server holds it. */
export interface SharedMemory {
  /** What each peer is given. */
  readonly fd: number;
  /** In bytes; more than was asked for if the huge pages are larger. */
  readonly size: number;
  /** For the log: what it is. */
  readonly description: string;
  /** Entry of the state table, u32. */
  state(peer: number): number;
  /** Sets an entry of the state table to 0. */
  clearState(peer: number): void;
  /**
   * Sets `length` bytes from `offset` to zero; both are multiples of 4096. What was reserved stays reserved, since an
   * access of a peer to memory that is not there kills the peer. Throws what the file system says.
   */
  clear(offset: number, length: number): void;
  /** Closes it and removes its name, if it has one. */
  close(): void;
}

/**
 * Creates the shared memory, zeroed. A memfd takes memory only as it is used; everything else, which can run full, is
 * reserved at once. Throws SystemCallError, or Error of `node:fs`; nothing is left then.
 */
export function createSharedMemory(source: SharedMemorySource, wanted: number): SharedMemory {
  const backing = openMemoryBacking(source, wanted);
  const { fd, hugePageSize, sealed, description } = backing;
  const size = Math.max(wanted, hugePageSize);
  try {
    if (!backing.anonymous) reserve(backing, size);
    const table = sealed
      ? mappedTable(fd, Math.max(STATE_TABLE_SIZE, hugePageSize))
      : fileTable(fd, hugePageSize);
    /** Clients can truncate what is not sealed; the others find their bytes again, set to zero. */
    const restoreLength = () => {
      if (sealed || fileLength(fd) >= size) return;
      if (backing.anonymous) setFileLength(fd, size, description);
      else reserve(backing, size);
    };
    return {
      fd,
      size,
      description,
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
      close() {
        table.close();
        closeFd(fd);
        backing.release();
      },
    };
  } catch (error) {
    closeFd(fd);
    backing.release();
    throw error;
  }
}

/** Makes a file `size` bytes long, with memory or disk blocks behind all of them. */
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
 * The state table of a file that any client can truncate at any moment: an access to a mapping behind the end would
 * kill the server, read(2) and write(2) only do less. hugetlbfs has no write(2).
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

/** Overwrites a part of a file of hugetlbfs, page by page. A hole would lose the reservation of its pages. */
function overwriteMapped(fd: number, offset: number, end: number, pageSize: number): void {
  for (let page = Math.floor(offset / pageSize) * pageSize; page < end; page += pageSize) {
    const from = Math.max(page, offset);
    const to = Math.min(page + pageSize, end);
    using mapping = mapShared(fd, pageSize, { offset: page, write: true, subject: 'huge page' });
    new Uint8Array(mapping.buffer, from - page, to - from).fill(0);
  }
}
