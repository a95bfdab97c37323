import { F_DUPFD_CLOEXEC, F_GETFL, F_SETFL, O_NONBLOCK } from './constants.ts';
import { check } from './errors.ts';
import * as libc from './libc.ts';

/** Closes a descriptor owned by the caller. Never throws: close(2) releases the descriptor even if it fails. */
export function closeFd(fd: number): void {
  libc.close(fd);
}

/** Returns a second descriptor for the same open file description, close-on-exec. Throws {@link SystemCallError}. */
export function duplicateFd(fd: number): number {
  return check(libc.fcntl(fd, F_DUPFD_CLOEXEC, 'int', 0), 'fcntl F_DUPFD_CLOEXEC', `fd ${fd}`);
}

/**
 * Sets or clears O_NONBLOCK. The flag belongs to the open file description, so it applies to all of its descriptors, and
 * other processes with one can undo the change. Throws {@link SystemCallError}.
 */
export function setNonBlocking(fd: number, nonBlocking = true): void {
  const flags = check(libc.fcntl(fd, F_GETFL, 'int', 0), 'fcntl F_GETFL', `fd ${fd}`);
  const changed = nonBlocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
  check(libc.fcntl(fd, F_SETFL, 'int', changed), 'fcntl F_SETFL', `fd ${fd}`);
}
