import { check } from '../errors.ts';
import * as libc from '../libc.ts';

const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const SO_SNDTIMEO = 21;

function setTimeoutOption(fd: number, option: number, name: string, milliseconds: number): void {
  // struct timeval {i64 seconds, i64 microseconds}. Zero would mean forever.
  const microseconds = Math.max(1, Math.round(milliseconds * 1000));
  const timeval = new BigInt64Array([BigInt(Math.floor(microseconds / 1e6)), BigInt(microseconds % 1e6)]);
  const bytes = new Uint8Array(timeval.buffer);
  check(libc.setsockopt(fd, SOL_SOCKET, option, bytes, bytes.length), `setsockopt ${name}`, `fd ${fd}`);
}

/**
 * Sets the timeout of receive and accept on a blocking socket, which then fail with EAGAIN. `milliseconds` is rounded up to a
 * tick of the kernel's timer, 1 to 10 ms. Throws `SystemCallError`.
 */
export function setReceiveTimeout(fd: number, milliseconds: number): void {
  setTimeoutOption(fd, SO_RCVTIMEO, 'SO_RCVTIMEO', milliseconds);
}

/** The same for sends (EAGAIN) and connect(2) (EINPROGRESS). Throws `SystemCallError`. */
export function setSendTimeout(fd: number, milliseconds: number): void {
  setTimeoutOption(fd, SO_SNDTIMEO, 'SO_SNDTIMEO', milliseconds);
}
