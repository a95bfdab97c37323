import { randomBytes } from 'node:crypto';
import { fchmodSync, fstatSync, openSync, statfsSync, unlinkSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { closeFd, SystemCallError } from '@ivshmem/linux';
import {
  createMemfd,
  createSharedMemoryObject,
  F_SEAL_GROW,
  F_SEAL_SHRINK,
  fileLength,
  isRegularFile,
  openSharedMemoryObject,
  sealsOf,
  unlinkSharedMemoryObject,
} from '@ivshmem/linux/memory';
import { isFileInUse, markFileInUse, tryLockFile } from '@ivshmem/linux/process';
import type { KeptDescriptors } from './kept-descriptors.ts';
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
  /**
   * Descriptors of separate open file descriptions of the file, by name: the one sent to clients lives as long as they do, but
   * these only as long as the server. `mark` is that of {@link mark}; `lock`, for a POSIX object, keeps other servers off it.
   */
  readonly locks: ReadonlyMap<string, number>;
  /** For the log, such as `sealed memfd`. */
  readonly description: string;
  /** Its size is fixed by seals. */
  readonly sealed: boolean;
  /** A memfd: limited by the host's memory, not by the size of a mounted file system. */
  readonly anonymous: boolean;
  /** Page size in bytes on hugetlbfs, which maps whole pages only and has no write(2); 0 elsewhere. */
  readonly hugePageSize: number;
}

/**
 * Creates the file for the shared memory and marks it as in use. A memfd has `size` bytes, other files are empty. Throws
 * SystemCallError, or Error of `node:fs`, and leaves nothing behind.
 */
export function openMemoryBacking(source: SharedMemorySource, size: number): MemoryBacking {
  const locks = new Map<string, number>();
  const fd = create(source, size, locks);
  const backing = describe(source, fd, locks, pageSizeOf(source));
  try {
    mark(fd, locks);
    return backing;
  } catch (error) {
    unlinkBacking(source, backing);
    closeBacking(backing);
    throw error;
  }
}

/**
 * Continues with the file of an earlier process, kept as `memory` beside {@link MemoryBacking.locks}. Throws Error with the reason, having closed them, if it is not a file for this memory of `size`
 * bytes.
 */
export function restoreMemoryBacking(
  source: SharedMemorySource,
  size: number,
  kept: Pick<KeptDescriptors, 'take' | 'remove'>,
): MemoryBacking {
  const fd = kept.take('memory');
  if (fd === undefined) throw new Error('the stored memory is missing');
  const locks = new Map<string, number>();
  const file = `/proc/self/fd/${fd}`;
  const backing = describe(source, fd, locks, hugePageSizeOf(file));
  try {
    if (!isRegularFile(fd)) throw new Error('the stored memory is not a file');
    const seals = F_SEAL_SHRINK | F_SEAL_GROW;
    if (backing.sealed && ((sealsOf(fd) & seals) !== seals || fileLength(fd) !== size)) {
      throw new Error(`the stored memory is not sealed at ${size} bytes`);
    }
    if (source.kind === 'memfd' && backing.hugePageSize !== pageSizeOf(source)) {
      throw new Error('the stored memory has pages of another size');
    }
    for (const name of source.kind === 'posix' ? ['mark', 'lock'] : ['mark']) {
      const lock = kept.take(name);
      if (lock === undefined) continue;
      if (isSameFile(lock, fd)) {
        locks.set(name, lock);
      } else {
        closeFd(lock);
        kept.remove(name);
      }
    }
    if (source.kind === 'posix' && !locks.has('lock') && !lock(fd, locks))
      throw inUse(objectName(source.name));
    if (!locks.has('mark') && !isFileInUse(fd)) mark(fd, locks);
    return backing;
  } catch (error) {
    closeBacking(backing);
    throw error;
  }
}

/** Closes the descriptors. */
export function closeBacking({ fd, locks }: MemoryBacking): void {
  closeFd(fd);
  for (const lock of locks.values()) closeFd(lock);
}

/** Removes the name of a POSIX object, unless it refers to another object by now. */
export function unlinkBacking(source: SharedMemorySource, { fd }: MemoryBacking): void {
  if (source.kind !== 'posix') return;
  const name = objectName(source.name);
  try {
    const named = openSharedMemoryObject(name);
    const isOurs = isSameFile(named, fd);
    closeFd(named);
    if (isOurs) unlinkSharedMemoryObject(name);
  } catch {
    // The name is gone.
  }
}

function isSameFile(a: number, b: number): boolean {
  const [one, other] = [a, b].map((fd) => fstatSync(fd, { bigint: true }));
  return one!.dev === other!.dev && one!.ino === other!.ino;
}

/** Opens the file of `fd` again: another open file description. */
function reopen(fd: number): number {
  return openSync(`/proc/self/fd/${fd}`, 'r+');
}

/**
 * Marks the memory as held by a server, for clients that are disconnected: while the mark is there, the client was evicted
 * and must stop using the memory; otherwise the server is gone, and clients may go on sharing the memory. Sets no mark if /proc
 * is not mounted.
 */
function mark(fd: number, locks: Map<string, number>): void {
  let own: number;
  try {
    own = reopen(fd);
  } catch {
    return;
  }
  locks.set('mark', own);
  markFileInUse(own);
}

/** Locks a POSIX object against other servers. Returns whether that was possible. */
function lock(fd: number, locks: Map<string, number>): boolean {
  const own = reopen(fd);
  locks.set('lock', own);
  return tryLockFile(own);
}

function describe(
  source: SharedMemorySource,
  fd: number,
  locks: Map<string, number>,
  hugePageSize: number,
): MemoryBacking {
  const anonymous = source.kind === 'memfd';
  const sealed = anonymous && source.seal;
  return { fd, locks, description: descriptionOf(source), sealed, anonymous, hugePageSize };
}

function descriptionOf(source: SharedMemorySource): string {
  switch (source.kind) {
    case 'memfd': {
      const { seal, hugePageSize } = source;
      const pages = hugePageSize === undefined ? '' : ` of huge pages of ${hugePageSize} bytes`;
      return `${seal ? 'sealed memfd' : 'memfd'}${pages}`;
    }
    case 'posix':
      return `shared memory object ${objectName(source.name)}`;
    case 'directory':
      return `file in ${source.path}`;
  }
}

function objectName(given: string): string {
  return `/${given.replace(/^\/+/, '')}`;
}

function create(source: SharedMemorySource, size: number, locks: Map<string, number>): number {
  switch (source.kind) {
    case 'memfd':
      return createMemfd('ivshmem', size, { seal: source.seal, hugePageSize: source.hugePageSize });
    case 'posix':
      return createPosix(objectName(source.name), locks);
    case 'directory': {
      const path = join(source.path, `ivshmem.${randomBytes(6).toString('hex')}`);
      const fd = openSync(path, 'wx+', 0o600);
      unlinkSync(path);
      return fd;
    }
  }
}

/**
 * Creates a POSIX object. Replaces one left behind by a dead server, which remains valid for processes that have it open;
 * fails if anything else has that name.
 */
function createPosix(name: string, locks: Map<string, number>): number {
  let fd = createSharedMemoryObject(name);
  if (fd === null) {
    removeAbandoned(name);
    fd = createSharedMemoryObject(name);
    if (fd === null) throw inUse(name);
  }
  lock(fd, locks);
  fchmodSync(fd, OBJECT_MODE);
  return fd;
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

/** Size of the huge pages that a source asks for; 0 without. */
function pageSizeOf(source: SharedMemorySource): number {
  if (source.kind === 'memfd') return source.hugePageSize ?? 0;
  return source.kind === 'directory' ? hugePageSizeOf(source.path) : 0;
}

/** On hugetlbfs, the block size is that of the pages. */
function hugePageSizeOf(path: string): number {
  const { type, bsize } = statfsSync(path);
  return type === HUGETLBFS_MAGIC ? bsize : 0;
}
