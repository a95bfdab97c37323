import { EAGAIN } from './constants.ts';
import { SystemCallError } from './errors.ts';
import * as libc from './libc.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;

/**
 * Locks an open file for this owner alone; false where somebody else holds the lock. The lock belongs to the open
 * file description: it lasts until the last descriptor of it is closed, those in other processes included.
 * Throws {@link SystemCallError}.
 */
export function tryLockFile(fd: number): boolean {
  if (libc.flock(fd, LOCK_EX | LOCK_NB) === 0) return true;
  const errno = libc.errno();
  if (errno === EAGAIN) return false;
  throw new SystemCallError('flock', `fd ${fd}`, errno);
}
