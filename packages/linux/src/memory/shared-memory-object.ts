import { constants } from 'node:os';
import { O_CREAT, O_EXCL, O_RDWR } from '../constants.ts';
import { check, SystemCallError } from '../errors.ts';
import * as libc from '../libc.ts';

const { EEXIST, ENOENT } = constants.errno;

/**
 * Creates an empty POSIX shared memory object with mode 600; the caller owns the descriptor. Returns null if the name is
 * taken. Throws {@link SystemCallError}.
 */
export function createSharedMemoryObject(name: string): number | null {
  const fd = libc.shmOpen(name, O_CREAT | O_EXCL | O_RDWR, 0o600);
  if (fd !== -1) return fd;
  const errno = libc.errno();
  if (errno === EEXIST) return null;
  throw new SystemCallError('shm_open', name, errno);
}

/** Opens an existing one; the caller owns the descriptor. Throws {@link SystemCallError}. */
export function openSharedMemoryObject(name: string): number {
  return check(libc.shmOpen(name, O_RDWR, 0), 'shm_open', name);
}

/** Removes the name; open descriptors remain valid. A missing name is no error. Throws {@link SystemCallError}. */
export function unlinkSharedMemoryObject(name: string): void {
  if (libc.shmUnlink(name) === 0) return;
  const errno = libc.errno();
  if (errno !== ENOENT) throw new SystemCallError('shm_unlink', name, errno);
}
