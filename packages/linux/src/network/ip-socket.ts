import { constants } from 'node:os';
import { EAGAIN, EINTR, O_CLOEXEC } from '../constants.ts';
import { check, SystemCallError } from '../errors.ts';
import { closeFd } from '../fd.ts';
import * as libc from '../libc.ts';
import { OwnedFd } from '../owned-fd.ts';
import { setReceiveTimeout, setSendTimeout } from '../socket/socket-timeout.ts';
import { AF_INET, AF_INET6, type IpAddress, parseIpAddress } from './ip-address.ts';

const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_RAW = 3;
const IPPROTO_ICMP = 1;
const IPPROTO_ICMPV6 = 58;
const SOL_SOCKET = 1;
const SO_LINGER = 13;
const SHUT_WR = 1;
const MSG_PEEK = 2;
const { EALREADY, EINPROGRESS } = constants.errno;
/** Enough for sockaddr_in (16 bytes) and sockaddr_in6 (28). */
const SOCKADDR_SIZE = 28;

/** Flag of send(2): EPIPE instead of the signal SIGPIPE. */
export const MSG_NOSIGNAL = 0x4000;

/** With AF_INET6, `icmp` is ICMPv6. */
export type IpSocketType = 'tcp' | 'udp' | 'icmp';

/** sockaddr_in {u16 family, u16 port, u32 address} or sockaddr_in6 {…, u32 flow, u8 address[16], u32 scope}. */
function socketAddress({ family, bytes }: IpAddress, port: number): Uint8Array {
  const address = new Uint8Array(family === AF_INET6 ? 28 : 16);
  const view = new DataView(address.buffer);
  view.setUint16(0, family, true);
  view.setUint16(2, port);
  address.set(bytes, family === AF_INET6 ? 8 : 4);
  return address;
}

/**
 * A blocking IP socket in the network namespace of the thread that creates it. No call blocks for longer than the timeout, so
 * that its thread can always be stopped. Use send(2) and recv(2) on `fd`, which is close-on-exec.
 */
export class IpSocket extends OwnedFd {
  readonly family: IpAddress['family'];
  readonly #timeoutMs: number;

  /** Takes ownership of `fd`: see {@link openIpSocket}. Throws {@link SystemCallError}. */
  constructor(fd: number, family: IpAddress['family'], timeoutMs: number) {
    super(fd);
    this.family = family;
    this.#timeoutMs = timeoutMs;
    setReceiveTimeout(fd, timeoutMs);
    setSendTimeout(fd, timeoutMs);
  }

  /** setsockopt(2) with an int or a string. Throws {@link SystemCallError}. */
  setOption(level: number, option: number, value: number | string): void {
    const bytes =
      typeof value === 'string' ? Buffer.from(value) : new Uint8Array(Int32Array.of(value).buffer);
    check(
      libc.setsockopt(this.fd, level, option, bytes, bytes.length),
      'setsockopt',
      `option ${option} of level ${level} to ${value}`,
    );
  }

  /** Port 0 chooses a free port, see {@link localPort}. Throws {@link SystemCallError}. */
  bind(address: string, port: number): void {
    const bytes = socketAddress(parseIpAddress(address), port);
    check(libc.bind(this.fd, bytes, bytes.length), 'bind', `${address} port ${port}`);
  }

  get localPort(): number {
    const address = new Uint8Array(SOCKADDR_SIZE);
    const length = new Uint8Array(Uint32Array.of(SOCKADDR_SIZE).buffer);
    check(libc.getsockname(this.fd, address, length), 'getsockname', `fd ${this.fd}`);
    return new DataView(address.buffer).getUint16(2);
  }

  listen(): void {
    check(libc.listen(this.fd, 1), 'listen', `fd ${this.fd}`);
  }

  /** Accepts a connection, with the same timeouts; null after the timeout. Throws {@link SystemCallError}. */
  accept(): IpSocket | null {
    const fd = libc.accept4(this.fd, null, null, O_CLOEXEC);
    if (fd !== -1) return new IpSocket(fd, this.family, this.#timeoutMs);
    const errno = libc.errno();
    if (errno === EAGAIN || errno === EINTR) return null;
    throw new SystemCallError('accept', `fd ${this.fd}`, errno);
  }

  /**
   * Connects. Returns false if that takes longer than the timeout; it continues, so call this again. A datagram or ICMP
   * socket then receives from this address only. Throws {@link SystemCallError}.
   */
  connect(address: string, port: number): boolean {
    const bytes = socketAddress(parseIpAddress(address), port);
    if (libc.connect(this.fd, bytes, bytes.length) === 0) return true;
    const errno = libc.errno();
    if (errno === EINPROGRESS || errno === EALREADY || errno === EINTR) return false;
    throw new SystemCallError('connect', port === 0 ? address : `${address} port ${port}`, errno);
  }

  /**
   * Connects a datagram socket to the sender of the next datagram, without receiving that. Returns false after the timeout.
   * Throws {@link SystemCallError}.
   */
  connectToSender(): boolean {
    const address = new Uint8Array(SOCKADDR_SIZE);
    const length = new Uint8Array(Uint32Array.of(SOCKADDR_SIZE).buffer);
    if (libc.recvfrom(this.fd, new Uint8Array(1), 1, MSG_PEEK, address, length) === -1) {
      const errno = libc.errno();
      if (errno === EAGAIN || errno === EINTR) return false;
      throw new SystemCallError('recvfrom', `fd ${this.fd}`, errno);
    }
    const size = new DataView(length.buffer).getUint32(0, true);
    check(libc.connect(this.fd, address, size), 'connect', `fd ${this.fd}`);
    return true;
  }

  /** Shuts down the sending side. */
  shutdownWrite(): void {
    check(libc.shutdown(this.fd, SHUT_WR), 'shutdown', `fd ${this.fd}`);
  }

  /**
   * Aborts a connection and drops unsent data. If the other end is gone, a lingering connection would keep the network
   * namespace and its interfaces for minutes.
   */
  abort(): void {
    if (!this.isOpen) return;
    // struct linger {int on, int seconds}.
    libc.setsockopt(this.fd, SOL_SOCKET, SO_LINGER, new Uint8Array(Int32Array.of(1, 0).buffer), 8);
    this.close();
  }
}

/** Opens an {@link IpSocket}. Throws {@link SystemCallError} (EPERM for ICMP without CAP_NET_RAW). */
export function openIpSocket(family: IpAddress['family'], type: IpSocketType, timeoutMs: number): IpSocket {
  const kind = { tcp: SOCK_STREAM, udp: SOCK_DGRAM, icmp: SOCK_RAW }[type];
  const protocol = type !== 'icmp' ? 0 : family === AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6;
  const fd = check(libc.socket(family, kind | O_CLOEXEC, protocol), 'socket', type);
  try {
    return new IpSocket(fd, family, timeoutMs);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}
