import { constants } from 'node:os';
import { errno, SystemCallError } from '@ivshmem/linux';

const { EINTR, EAGAIN, ENETDOWN, ENETUNREACH, ENOBUFS, ECONNREFUSED, EHOSTUNREACH } = constants.errno;
const EHOSTDOWN = 112;

/** Errors that mean a lost datagram: the network is down or congested, or there is no listener. */
const losses = new Set([ENETDOWN, ENETUNREACH, ENOBUFS, ECONNREFUSED, EHOSTDOWN, EHOSTUNREACH]);

/** Whether a call failed because of its timeout or a signal, so that it can be repeated. */
export function isTimeout(number: number): boolean {
  return number === EAGAIN || number === EINTR;
}

/**
 * To be called right after a send or receive of a datagram has failed. Returns the errno of a timeout or a loss, and
 * throws {@link SystemCallError} for any other. The error may belong to an earlier datagram.
 */
export function datagramErrno(call: string, subject: string): number {
  const number = errno();
  if (isTimeout(number) || losses.has(number)) return number;
  throw new SystemCallError(call, subject, number);
}
