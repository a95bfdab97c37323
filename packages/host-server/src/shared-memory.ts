import { randomBytes } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync, statfsSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import {
  closeFd,
  createMemfd,
  createSharedMemoryObject,
  fileLength,
  mapShared,
  openSharedMemoryObject,
  punchHole,
  reserveHugePages,
  SystemCallError,
  setFileLength,
  tryLockFile,
  unlinkSharedMemoryObject,
} from '@ivshmem/linux';
import { STATE_TABLE_SIZE } from '@ivshmem/transport';
import type { SharedMemorySource } from './options.ts';

const EEXIST = 17;
const HUGETLBFS_MAGIC = 0x958458f6;
const ZEROS = new Uint8Array(1 << 20);

/** The memory that all peers share, as the server holds it. */
export interface SharedMemory {
  /** What each peer is given. */
  readonly fd: number;
  /** In bytes; more than was asked for where the huge pages are larger. */
  readonly size: number;
  /** For the log: what it is. */
  readonly description: string;
  /** Entry of the state table, u32. */
  state(peer: number): number;
  /** Takes an entry of the state table to 0. */
  clearState(peer: number): void;
  /** Takes `length` bytes from `offset` to zero; both are multiples of 4096. Throws what the file system says. */
  clear(offset: number, length: number): void;
  /** Gives it back, with its name where it has one. */
  close(): void;
}

interface Backing {
  fd: number;
  description: string;
  /** Nobody can truncate it. */
  sealed: boolean;
  /** Of hugetlbfs, where only whole pages can be mapped and write(2) does not exist; 0 elsewhere. */
  hugePageSize: number;
  release(): void;
}

/**
 * Creates the shared memory, zeroed. Throws SystemCallError, or Error of `node:fs`, naming what could not be had;
 * nothing is left then.
 */
export function createSharedMemory(source: SharedMemorySource, wanted: number): SharedMemory {
  const backing = open(source, wanted);
  const { fd, hugePageSize, sealed, description } = backing;
  const size = Math.max(wanted, hugePageSize);
  try {
    if (source.kind !== 'memfd') setFileLength(fd, size, description);
    if (hugePageSize > 0 && !sealed) reserveHugePages(fd, 0, size, hugePageSize, description);
    // What cannot be had is to fail here, not at the first access, where it kills.
    if (hugePageSize === 0) writeSync(fd, ZEROS, 0, STATE_TABLE_SIZE, 0);
    const table = sealed
      ? mappedTable(fd, Math.max(STATE_TABLE_SIZE, hugePageSize))
      : fileTable(fd, hugePageSize);
    /** Clients can truncate what is not sealed; the others find their bytes again, taken back to zero. */
    const restoreLength = () => {
      if (!sealed && fileLength(fd) < size) setFileLength(fd, size, description);
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
        if (hugePageSize > 0) clearHugePages(fd, offset, length, hugePageSize);
        else if (!punchHole(fd, offset, length)) overwrite(fd, offset, length);
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

interface StateTable {
  state(peer: number): number;
  clearState(peer: number): void;
  close(): void;
}

/** The state table of memory that nobody can truncate. */
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

function open(source: SharedMemorySource, size: number): Backing {
  switch (source.kind) {
    case 'memfd': {
      const { seal, hugePageSize } = source;
      const fd = createMemfd('ivshmem', size, { seal, hugePageSize });
      const pages = hugePageSize === undefined ? '' : ` of huge pages of ${hugePageSize} bytes`;
      const description = `${seal ? 'sealed memfd' : 'memfd'}${pages}`;
      return { fd, description, sealed: seal, hugePageSize: hugePageSize ?? 0, release() {} };
    }
    case 'posix':
      return openPosix(source.name);
    case 'directory':
      return openIn(source.path);
  }
}

/**
 * A new object, in place of one that a dead server has left: whoever still has that keeps it, undisturbed. A living
 * server holds a lock on its object. The lock is on an open file of its own, since the one that clients get lives as
 * long as they do.
 */
function openPosix(given: string): Backing {
  const name = `/${given.replace(/^\/+/, '')}`;
  const description = `shared memory object ${name}`;
  const inUse = () =>
    new SystemCallError(
      'shm_open',
      name,
      EEXIST,
      'another server uses it: stop that, or choose another name',
    );
  let fd = createSharedMemoryObject(name);
  if (fd === null) {
    const left = openSharedMemoryObject(name);
    try {
      if (!tryLockFile(left)) throw inUse();
      unlinkSharedMemoryObject(name);
    } finally {
      closeFd(left);
    }
    fd = createSharedMemoryObject(name);
    if (fd === null) throw inUse();
  }
  const lock = openSync(`/proc/self/fd/${fd}`, 'r+');
  tryLockFile(lock);
  const { dev, ino } = fstatSync(lock, { bigint: true });
  const release = () => {
    try {
      const named = openSharedMemoryObject(name);
      const found = fstatSync(named, { bigint: true });
      closeFd(named);
      if (found.dev === dev && found.ino === ino) unlinkSharedMemoryObject(name);
    } catch {
      // The name is gone, or is not ours any more.
    }
    closeSync(lock);
  };
  return { fd, description, sealed: false, hugePageSize: 0, release };
}

function openIn(directory: string): Backing {
  const system = statfsSync(directory);
  const path = join(directory, `ivshmem.${randomBytes(6).toString('hex')}`);
  const fd = openSync(path, 'wx+', 0o600);
  unlinkSync(path);
  const hugePageSize = system.type === HUGETLBFS_MAGIC ? system.bsize : 0;
  return { fd, description: `file in ${directory}`, sealed: false, hugePageSize, release() {} };
}

/** For file systems without holes. */
function overwrite(fd: number, offset: number, length: number): void {
  for (let at = offset; at < offset + length; ) {
    at += writeSync(fd, ZEROS, 0, Math.min(ZEROS.length, offset + length - at), at);
  }
}

/** Holes in hugetlbfs consist of whole huge pages (those of older kernels, at least): the rest is overwritten. */
function clearHugePages(fd: number, offset: number, length: number, pageSize: number): void {
  const end = offset + length;
  const firstWhole = Math.ceil(offset / pageSize) * pageSize;
  const endWhole = Math.floor(end / pageSize) * pageSize;
  if (firstWhole < endWhole) {
    punchHole(fd, firstWhole, endWhole - firstWhole);
    // The hole has taken the reservation with it.
    reserveHugePages(fd, firstWhole, endWhole - firstWhole, pageSize, 'cleared section');
  }
  for (let page = Math.floor(offset / pageSize) * pageSize; page < end; page += pageSize) {
    const from = Math.max(page, offset);
    const to = Math.min(page + pageSize, end);
    if (to - from === pageSize) continue;
    // Mapping reserves the page, so a pool that is exhausted shows here and not as a signal.
    using mapping = mapShared(fd, pageSize, { offset: page, write: true, subject: 'huge page' });
    new Uint8Array(mapping.buffer, from - page, to - from).fill(0);
  }
}
