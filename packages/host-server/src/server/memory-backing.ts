import { randomBytes } from 'node:crypto';
import { closeSync, fchmodSync, fstatSync, openSync, statfsSync, unlinkSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { closeFd, SystemCallError } from '@ivshmem/linux';
import {
  createMemfd,
  createSharedMemoryObject,
  openSharedMemoryObject,
  unlinkSharedMemoryObject,
} from '@ivshmem/linux/memory';
import { markFileInUse, tryLockFile } from '@ivshmem/linux/process';
import type { SharedMemorySource } from './options.ts';

const { EEXIST } = constants.errno;
const HUGETLBFS_MAGIC = 0x958458f6;
/**
 * Permissions of a POSIX object of a server. The sticky bit has no effect on a regular file; it marks the object as one
 * that a later server may replace.
 */
const OBJECT_MODE = 0o1600;
const OBJECT_MARK = 0o1000;

/** The file behind the shared memory. */
export interface MemoryBacking {
  readonly fd: number;
  /** For the log: what it is. */
  readonly description: string;
  /** Its size cannot be changed any more. */
  readonly sealed: boolean;
  /** It has no name and belongs to no mounted file system: only the memory of the host limits it. */
  readonly anonymous: boolean;
  /** On hugetlbfs, which can map only whole pages and has no write(2); 0 elsewhere. */
  readonly hugePageSize: number;
  /** Removes the name, if there is one, and the mark of {@link openMemoryBacking}. `fd` stays the caller's. */
  release(): void;
}

/**
 * Opens a new file for the shared memory, and marks it as in use. A memfd has `size` bytes, all others are empty. Throws
 * SystemCallError, or Error of `node:fs`; nothing is left then.
 */
export function openMemoryBacking(source: SharedMemorySource, size: number): MemoryBacking {
  const backing = open(source, size);
  try {
    const unmark = mark(backing.fd);
    const release = () => {
      unmark();
      backing.release();
    };
    return { ...backing, release };
  } catch (error) {
    closeFd(backing.fd);
    backing.release();
    throw error;
  }
}

/**
 * Lets clients see whether a server still holds the memory. A client that is disconnected while it does was evicted, and
 * must leave the memory; if not, the server is gone, and those that share the memory may go on. The mark is on an open
 * file of its own, since the one that clients get lives as long as they do. Returns how to remove it. Without /proc there
 * is none.
 */
function mark(fd: number): () => void {
  let own: number;
  try {
    own = openSync(`/proc/self/fd/${fd}`, 'r+');
  } catch {
    return () => {};
  }
  try {
    markFileInUse(own);
  } catch (error) {
    closeSync(own);
    throw error;
  }
  return () => closeSync(own);
}

function open(source: SharedMemorySource, size: number): MemoryBacking {
  switch (source.kind) {
    case 'memfd': {
      const { seal, hugePageSize } = source;
      const fd = createMemfd('ivshmem', size, { seal, hugePageSize });
      const pages = hugePageSize === undefined ? '' : ` of huge pages of ${hugePageSize} bytes`;
      const description = `${seal ? 'sealed memfd' : 'memfd'}${pages}`;
      return {
        fd,
        description,
        sealed: seal,
        anonymous: true,
        hugePageSize: hugePageSize ?? 0,
        release() {},
      };
    }
    case 'posix':
      return openPosix(source.name);
    case 'directory':
      return openIn(source.path);
  }
}

/**
 * A new object. It replaces one that a dead server has left, which stays as it is for those who have it open; anything
 * else of that name is left alone. A running server holds a lock on its object, on an open file of its own, since the one
 * that clients get lives as long as they do.
 */
function openPosix(given: string): MemoryBacking {
  const name = `/${given.replace(/^\/+/, '')}`;
  let fd = createSharedMemoryObject(name);
  if (fd === null) {
    removeAbandoned(name);
    fd = createSharedMemoryObject(name);
    if (fd === null) throw inUse(name);
  }
  const lock = openSync(`/proc/self/fd/${fd}`, 'r+');
  tryLockFile(lock);
  fchmodSync(lock, OBJECT_MODE);
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
  const description = `shared memory object ${name}`;
  return { fd, description, sealed: false, anonymous: false, hugePageSize: 0, release };
}

/** Removes the object of a dead server. Throws SystemCallError if it is anything else. */
function removeAbandoned(name: string): void {
  const left = openSharedMemoryObject(name);
  try {
    if ((fstatSync(left).mode & OBJECT_MARK) === 0) {
      const remedy = `choose another name, or remove /dev/shm${name}`;
      throw new SystemCallError('shm_open', name, EEXIST, `not an object of an ivshmem server: ${remedy}`);
    }
    if (!tryLockFile(left)) throw inUse(name);
    unlinkSharedMemoryObject(name);
  } finally {
    closeFd(left);
  }
}

function inUse(name: string): SystemCallError {
  const explanation = 'another server uses it: stop that, or choose another name';
  return new SystemCallError('shm_open', name, EEXIST, explanation);
}

function openIn(directory: string): MemoryBacking {
  const system = statfsSync(directory);
  const path = join(directory, `ivshmem.${randomBytes(6).toString('hex')}`);
  const fd = openSync(path, 'wx+', 0o600);
  unlinkSync(path);
  const hugePageSize = system.type === HUGETLBFS_MAGIC ? system.bsize : 0;
  const description = `file in ${directory}`;
  return { fd, description, sealed: false, anonymous: false, hugePageSize, release() {} };
}
