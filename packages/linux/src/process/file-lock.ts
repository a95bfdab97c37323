import { EAGAIN } from '../constants.ts';
import { check, SystemCallError } from '../errors.ts';
import * as libc from '../libc.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_WRLCK = 1;
const F_UNLCK = 2;

/**
 * Takes an exclusive lock; returns false if it is held elsewhere. The lock belongs to the open file description: it lasts
 * until its last descriptor is closed, including those in other processes.
 * Throws {@link SystemCallError}.
 */
export function tryLockFile(fd: number): boolean {
  if (libc.flock(fd, LOCK_EX | LOCK_NB) === 0) return true;
  const errno = libc.errno();
  if (errno === EAGAIN) return false;
  throw new SystemCallError('flock', `fd ${fd}`, errno);
}

/** struct flock {i16 type, i16 whence, i64 start, i64 length, i32 pid}: an exclusive lock of the whole file. */
function wholeFile(): Int16Array {
  return Int16Array.of(F_WRLCK, ...new Array<number>(15).fill(0));
}

/**
 * Marks a file as in use by a lock that any process with a descriptor of the file can query, but only the holder can release.
 * It belongs to the open file description and is independent of {@link tryLockFile}. Throws {@link SystemCallError}: EAGAIN
 * if another open file description holds it.
 */
export function markFileInUse(fd: number): void {
  const lock = new Uint8Array(wholeFile().buffer);
  check(libc.fcntlLock(fd, F_OFD_SETLK, 'void *', lock), 'fcntl F_OFD_SETLK', `fd ${fd}`);
}

/** Whether another open file description of the same file holds a lock of {@link markFileInUse}. */
export function isFileInUse(fd: number): boolean {
  const lock = wholeFile();
  const result = libc.fcntlLock(fd, F_OFD_GETLK, 'void *', new Uint8Array(lock.buffer));
  return result === 0 && lock[0] !== F_UNLCK;
}
