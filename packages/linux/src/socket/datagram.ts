import { EINTR } from '../constants.ts';
import { check, SystemCallError } from '../errors.ts';
import { closeFd } from '../fd.ts';
import * as libc from '../libc.ts';
import { setSendTimeout } from './socket-timeout.ts';
import {
  AF_UNIX,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  socketAddress,
  UnixSocket,
} from './unix-socket.ts';

const MSG_NOSIGNAL = 0x4000;

/** struct sockaddr_un of a path or of `@name`, and its length in bytes. */
function datagramAddress(to: string): { address: Uint8Array; length: number } {
  const address = socketAddress(to, 'sendto');
  if (!to.startsWith('@')) return { address, length: address.length };
  // An abstract name is not terminated by a 0.
  address[2] = 0;
  return { address, length: 2 + Buffer.byteLength(to) };
}

/**
 * Sends one datagram to a Unix datagram socket: a path, or `@name` in the abstract namespace, as in NOTIFY_SOCKET of
 * sd_notify(3). Never blocks. Throws {@link SystemCallError}: ENOENT and ECONNREFUSED if there is no receiver,
 * EAGAIN if the receiver's queue is full.
 */
export function sendUnixDatagram(to: string, bytes: Uint8Array): void {
  const { address, length } = datagramAddress(to);
  const type = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  const fd = check(libc.socket(AF_UNIX, type, 0), 'socket', 'AF_UNIX');
  try {
    check(libc.sendto(fd, bytes, bytes.length, MSG_NOSIGNAL, address, length), 'sendto', to);
  } finally {
    closeFd(fd);
  }
}

/**
 * The same with descriptors, of which the caller keeps its own. While the receiver's queue is full, it blocks for up to
 * `patience` ms. Throws {@link SystemCallError} as above; ETOOMANYREFS if this user has too many descriptors in flight.
 */
export function sendDescriptors(
  to: string,
  bytes: Uint8Array,
  fds: readonly number[],
  patience: number,
): void {
  const { address, length } = datagramAddress(to);
  const fd = check(libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket', 'AF_UNIX');
  using socket = new UnixSocket(fd);
  setSendTimeout(fd, patience);
  check(libc.connect(fd, address, length), 'connect', to);
  for (;;) {
    try {
      if (socket.send(bytes, fds) > 0) return;
    } catch (error) {
      // With a timeout, the kernel does not restart the call after a signal.
      if (error instanceof SystemCallError && error.errno === EINTR) continue;
      throw error;
    }
    check(-1, 'sendmsg', to);
  }
}
