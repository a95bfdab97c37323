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
 * Permissions of a server's POSIX object. The sticky bit, which has no effect on a regular file, marks an object that a
 * later server may replace.
 */
const OBJECT_MODE = 0o1600;
const OBJECT_MARK = 0o1000;

/** The file behind the shared memory. */
export interface MemoryBacking {
  readonly fd: number;
  /** For the log, such as `sealed memfd`. */
  readonly description: string;
  /** Its size is fixed by seals. */
  readonly sealed: boolean;
  /** A memfd: limited by the host's memory, not by the size of a mounted file system. */
  readonly anonymous: boolean;
  /** Page size in bytes on hugetlbfs, which maps whole pages only and has no write(2); 0 elsewhere. */
  readonly hugePageSize: number;
  /** Removes the name, if there is one, and the mark of {@link openMemoryBacking}. The caller closes `fd`. */
  release(): void;
}

/**
 * Creates the file for the shared memory and marks it as in use. A memfd has `size` bytes, other files are empty. Throws
 * SystemCallError, or Error of `node:fs`, and leaves nothing behind.
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
 * Marks the memory as held by a server, for clients that are disconnected: while the mark is there, the client was evicted
 * and must stop using the memory; otherwise the server is gone, and clients may go on sharing the memory. The mark belongs
 * to a separate open file description, since the one sent to clients lives as long as they do. Returns a function that
 * removes the mark. Sets no mark if /proc is not mounted.
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
 * Creates a POSIX object. Replaces one left behind by a dead server, which remains valid for processes that have it open;
 * fails if anything else has that name. A running server holds a lock on its object, on a separate open file description,
 * since the one sent to clients lives as long as they do.
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
      // The name is gone, or refers to another object.
    }
    closeSync(lock);
  };
  const description = `shared memory object ${name}`;
  return { fd, description, sealed: false, anonymous: false, hugePageSize: 0, release };
}

/** Removes the object of a dead server. Throws SystemCallError if the name refers to anything else. */
function removeAbandoned(name: string): void {
  const left = openSharedMemoryObject(name);
  try {
    if ((fstatSync(left).mode & OBJECT_MARK) === 0) {
      const remedy = `choose another name or remove /dev/shm${name}`;
      throw new SystemCallError('shm_open', name, EEXIST, `not an object of an ivshmem server: ${remedy}`);
    }
    if (!tryLockFile(left)) throw inUse(name);
    unlinkSharedMemoryObject(name);
  } finally {
    closeFd(left);
  }
}

function inUse(name: string): SystemCallError {
  const explanation = 'in use by another server: stop that server or choose another name';
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
