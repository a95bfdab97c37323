import { F_DUPFD_CLOEXEC, F_GETFL, F_SETFL, O_NONBLOCK } from './constants.ts';
import { check } from './errors.ts';
import * as libc from './libc.ts';

/** Closes a descriptor that the caller owns. Never throws: after close(2) the descriptor is gone in any case. */
export function closeFd(fd: number): void {
  libc.close(fd);
}

/** A second descriptor for the same open file, close-on-exec. Throws {@link SystemCallError}. */
export function duplicateFd(fd: number): number {
  return check(libc.fcntl(fd, F_DUPFD_CLOEXEC, 'int', 0), 'fcntl F_DUPFD_CLOEXEC', `fd ${fd}`);
}

/**
 * Sets O_NONBLOCK, or takes it off. It is a property of the open file, so whoever else holds a descriptor of it sees,
 * and can undo, the change. Throws {@link SystemCallError}.
 */
export function setNonBlocking(fd: number, nonBlocking = true): void {
  const flags = check(libc.fcntl(fd, F_GETFL, 'int', 0), 'fcntl F_GETFL', `fd ${fd}`);
  const changed = nonBlocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
  check(libc.fcntl(fd, F_SETFL, 'int', changed), 'fcntl F_SETFL', `fd ${fd}`);
}
