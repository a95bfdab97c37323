import { constants } from 'node:os';
import { errno, SystemCallError } from '@ivshmem/linux';

const { EINTR, EAGAIN, ENETDOWN, ENETUNREACH, ENOBUFS, ECONNREFUSED, EHOSTUNREACH } = constants.errno;
const EHOSTDOWN = 112;

/** What a network that is down, congested or without a listener makes of a datagram: it is lost. */
const losses = new Set([ENETDOWN, ENETUNREACH, ENOBUFS, ECONNREFUSED, EHOSTDOWN, EHOSTUNREACH]);

/** Right after a call that failed: true where its time-out passed or a signal came; the call can be made again. */
export function isTimeout(number: number): boolean {
  return number === EAGAIN || number === EINTR;
}

/**
 * Right after a send or receive of a datagram that failed: returns its errno where that is a time-out or a loss, and
 * throws {@link SystemCallError} for all else. An error may also be that of an earlier datagram, reported late.
 */
export function datagramErrno(call: string, subject: string): number {
  const number = errno();
  if (isTimeout(number) || losses.has(number)) return number;
  throw new SystemCallError(call, subject, number);
}
