import { check } from '../errors.ts';
import { closeFd } from '../fd.ts';
import * as libc from '../libc.ts';
import { AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, socketAddress } from './unix-socket.ts';

const MSG_NOSIGNAL = 0x4000;

/**
 * Sends one datagram to a Unix datagram socket: a path, or `@name` in the abstract namespace, as in NOTIFY_SOCKET of
 * sd_notify(3). Never blocks. Throws {@link SystemCallError}: ENOENT and ECONNREFUSED if there is no receiver,
 * EAGAIN if the receiver's queue is full.
 */
export function sendUnixDatagram(to: string, bytes: Uint8Array): void {
  const address = socketAddress(to, 'sendto');
  let length = address.length;
  if (to.startsWith('@')) {
    // An abstract name is not terminated by a 0.
    address[2] = 0;
    length = 2 + Buffer.byteLength(to);
  }
  const type = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  const fd = check(libc.socket(AF_UNIX, type, 0), 'socket', 'AF_UNIX');
  try {
    check(libc.sendto(fd, bytes, bytes.length, MSG_NOSIGNAL, address, length), 'sendto', to);
  } finally {
    closeFd(fd);
  }
}
