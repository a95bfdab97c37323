import { constants } from 'node:os';
import { EAGAIN } from '../constants.ts';
import { check, SystemCallError } from '../errors.ts';
import { closeFd } from '../fd.ts';
import * as libc from '../libc.ts';
import { mapPrivate } from '../memory/memory.ts';
import { OwnedFd } from '../owned-fd.ts';
import { MessageHeader } from './message-header.ts';
import { MAX_SOCKET_PATH } from './socket-path.ts';

export const AF_UNIX = 1;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const SCM_CREDENTIALS = 2;
const SO_TYPE = 3;
const SO_PEERCRED = 17;
const SO_ACCEPTCONN = 30;
const SO_DOMAIN = 39;
const SO_PEEK_OFF = 42;
const MSG_PEEK = 0x2;
const MSG_CTRUNC = 0x8;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const SIOCOUTQ = 0x5411;
const SHUT_RDWR = 2;
const { EMFILE, ENAMETOOLONG, EINVAL } = constants.errno;

/** Maximum number of descriptors per message (SCM_MAX_FD of the kernel). */
export const MAX_FDS = 253;

/*
 * Buffers for sendmsg(2) and recvmsg(2), in one page-aligned block per thread, never unmapped: header, control messages, data.
 * cmsghdr is {u64 len, i32 level, i32 type}.
 */
const CONTROL = 128;
const CMSGHDR_SIZE = 16;
/** struct ucred {i32 pid, u32 uid, u32 gid}. */
const CREDENTIALS_SIZE = 12;
const CONTROL_SIZE = ((CMSGHDR_SIZE + MAX_FDS * 4 + 7) & ~7) + ((CMSGHDR_SIZE + CREDENTIALS_SIZE + 7) & ~7);
const BYTES = 4096;
const BYTES_SIZE = 16384;
const block = mapPrivate(BYTES + BYTES_SIZE);
const header = new MessageHeader(block, { data: BYTES, control: CONTROL });
const control = new Int32Array(block.buffer, CONTROL, CONTROL_SIZE / 4);
const controlLengths = new BigUint64Array(block.buffer, CONTROL, CONTROL_SIZE / 8);
const data = new Uint8Array(block.buffer, BYTES, BYTES_SIZE);

/** Calls `found` with type, index in {@link control} and size of each control message of SOL_SOCKET that recvmsg(2) has left. */
function forEachControl(found: (type: number, at: number, size: number) => void): void {
  const end = header.controlLength;
  for (let offset = 0; offset + CMSGHDR_SIZE <= end; ) {
    const length = Number(controlLengths[offset / 8]);
    if (length < CMSGHDR_SIZE || offset + length > end) return;
    const at = offset / 4;
    if (control[at + 2] === SOL_SOCKET) found(control[at + 3]!, at + 4, length - CMSGHDR_SIZE);
    offset += (length + 7) & ~7;
  }
}

/** Appends the descriptors of all SCM_RIGHTS messages. */
function takeFds(fds: number[]): void {
  forEachControl((type, at, size) => {
    if (type === SCM_RIGHTS) for (let i = 0; i < size >> 2; i++) fds.push(control[at + i]!);
  });
}

/** The sender of the message received last, if the socket has SO_PASSCRED: pid 0 if it is in another PID namespace. */
export function lastSender(): PeerCredentials | null {
  let sender: PeerCredentials | null = null;
  forEachControl((type, at, size) => {
    if (type !== SCM_CREDENTIALS || size < CREDENTIALS_SIZE) return;
    sender = { pid: control[at]!, uid: control[at + 1]! >>> 0, gid: control[at + 2]! >>> 0 };
  });
  return sender;
}

/**
 * struct sockaddr_un of a path. Throws {@link SystemCallError} (ENAMETOOLONG, EINVAL), on behalf of `syscall`, for a
 * path that the kernel would truncate.
 */
export function socketAddress(path: string, syscall: string): Uint8Array {
  const bytes = Buffer.from(path);
  if (bytes.length > MAX_SOCKET_PATH) {
    const explanation = `the path of a Unix socket has at most ${MAX_SOCKET_PATH} bytes, not ${bytes.length}`;
    throw new SystemCallError(syscall, path, ENAMETOOLONG, explanation);
  }
  if (bytes.length === 0 || bytes.includes(0)) {
    throw new SystemCallError(syscall, JSON.stringify(path), EINVAL, 'not a path for a Unix socket');
  }
  const address = new Uint8Array(2 + MAX_SOCKET_PATH + 1);
  address[0] = AF_UNIX;
  address.set(bytes, 2);
  return address;
}

/** Whether a descriptor is a connected Unix stream socket; one whose other end is gone counts. */
export function isUnixStream(fd: number): boolean {
  const wanted = { [SO_DOMAIN]: AF_UNIX, [SO_TYPE]: SOCK_STREAM, [SO_ACCEPTCONN]: 0 };
  return Object.entries(wanted).every(([option, value]) => {
    const found = new Int32Array(1);
    const length = new Uint8Array(Uint32Array.of(4).buffer);
    const bytes = new Uint8Array(found.buffer);
    return libc.getsockopt(fd, SOL_SOCKET, Number(option), bytes, length) === 0 && found[0] === value;
  });
}

/** Credentials of the other end of a Unix socket at the time of its connect(2) or listen(2). */
export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** A connected Unix stream socket that carries file descriptors. Non-blocking and close-on-exec. */
export class UnixSocket extends OwnedFd {
  /**
   * Connects to the socket at `path`. Throws {@link SystemCallError}: ENOENT if there is none, ECONNREFUSED if no process
   * listens, EAGAIN if the listener's backlog is full, ENAMETOOLONG.
   */
  static connect(path: string): UnixSocket {
    const address = socketAddress(path, 'connect');
    const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    const socket = new UnixSocket(check(libc.socket(AF_UNIX, type, 0), 'socket', 'AF_UNIX'));
    try {
      check(libc.connect(socket.fd, address, address.length), 'connect', path);
    } catch (error) {
      socket.close();
      throw error;
    }
    return socket;
  }

  /** Two sockets that are connected to each other. Throws {@link SystemCallError}. */
  static pair(): [UnixSocket, UnixSocket] {
    const fds = new Int32Array(2);
    const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    check(libc.socketpair(AF_UNIX, type, 0, new Uint8Array(fds.buffer)), 'socketpair', 'AF_UNIX');
    return [new UnixSocket(fds[0]!), new UnixSocket(fds[1]!)];
  }

  /**
   * Sends bytes, with up to {@link MAX_FDS} descriptors attached to the first of them; the caller keeps its own. Returns the
   * number of bytes sent, possibly fewer than given; if it is not 0, the descriptors were sent. 0: the socket buffer is full.
   * Throws {@link SystemCallError} (EPIPE or ECONNRESET if the other end is gone; never SIGPIPE), RangeError for descriptors
   * without bytes, or too many of them.
   */
  send(bytes: Uint8Array, fds: readonly number[] = []): number {
    if (fds.length > MAX_FDS) throw new RangeError(`${fds.length} descriptors: a message carries ${MAX_FDS}`);
    if (bytes.length === 0) {
      if (fds.length > 0) throw new RangeError('descriptors need a byte to go with');
      return 0;
    }
    const length = Math.min(bytes.length, BYTES_SIZE);
    data.set(length === bytes.length ? bytes : bytes.subarray(0, length));
    let controlLength = 0;
    if (fds.length > 0) {
      controlLength = (CMSGHDR_SIZE + fds.length * 4 + 7) & ~7;
      controlLengths[0] = BigInt(CMSGHDR_SIZE + fds.length * 4);
      control[2] = SOL_SOCKET;
      control[3] = SCM_RIGHTS;
      control.set(fds, 4);
    }
    header.prepare(length, controlLength);
    const sent = libc.sendmsg(this.#descriptor(), header.address, MSG_NOSIGNAL);
    if (sent !== -1) return sent;
    const errno = libc.errno();
    if (errno === EAGAIN) return 0;
    throw new SystemCallError('sendmsg', `fd ${this.fd}`, errno);
  }

  /**
   * Receives up to `into.length` bytes (> 0) and appends received descriptors to `fds`; they are close-on-exec and owned by the
   * caller. Returns the number of bytes, 0 at the end of the stream, -1 if nothing is pending. A read ends after a message with
   * descriptors, so those of two messages never arrive together. Throws {@link SystemCallError}; EMFILE if the process is out
   * of descriptors: those already received are closed, the others are lost, so close the socket.
   */
  receive(into: Uint8Array, fds: number[]): number {
    return this.#receive(into, fds, 0);
  }

  /**
   * The same, but the bytes and descriptors can be received again. Those in `fds` are duplicates: close them, too. The kernel
   * also shows the descriptors of what is right behind the last byte.
   */
  lookAhead(into: Uint8Array, fds: number[]): number {
    return this.#receive(into, fds, MSG_PEEK);
  }

  #receive(into: Uint8Array, fds: number[], flags: number): number {
    if (into.length === 0) throw new RangeError('no room to receive into');
    header.prepare(Math.min(into.length, BYTES_SIZE), CONTROL_SIZE);
    const received = libc.recvmsg(this.#descriptor(), header.address, MSG_CMSG_CLOEXEC | flags);
    if (received === -1) {
      const errno = libc.errno();
      if (errno === EAGAIN) return -1;
      throw new SystemCallError('recvmsg', `fd ${this.fd}`, errno);
    }
    if ((header.flags & MSG_CTRUNC) !== 0) {
      const arrived: number[] = [];
      takeFds(arrived);
      for (const fd of arrived) closeFd(fd);
      // The control buffer holds as many as a message may carry, so it is the descriptor table that is full.
      throw new SystemCallError('recvmsg', `fd ${this.fd}`, EMFILE, 'descriptors were lost on arrival');
    }
    takeFds(fds);
    into.set(data.subarray(0, received));
    return received;
  }

  /**
   * What {@link receive} would return, without receiving it: `data`, `nothing` pending, or the `end` of the stream, which
   * includes a broken connection.
   */
  peek(): 'data' | 'nothing' | 'end' {
    const received = libc.recv(this.#descriptor(), block.address + BYTES, 1, MSG_PEEK);
    if (received > 0) return 'data';
    return received === -1 && libc.errno() === EAGAIN ? 'nothing' : 'end';
  }

  /**
   * Copies the next `into.length` bytes, and appends duplicates of the first descriptors among them to `fds`, but leaves everything
   * in the socket: see {@link discard}. `length` is smaller if not all have arrived; `ended`: no more will. If the bytes have no
   * descriptors, the kernel may add those of the bytes that follow. Throws as {@link receive} does.
   */
  peekBytes(into: Uint8Array, fds: number[]): { length: number; ended: boolean } {
    let length = 0;
    const later: number[] = [];
    try {
      while (length < into.length) {
        // The kernel copies no further than the first descriptors.
        if (length > 0) this.#setPeekOffset(length);
        const received = this.#receive(into.subarray(length), fds.length === 0 ? fds : later, MSG_PEEK);
        if (received <= 0) return { length, ended: received === 0 };
        length += received;
      }
      return { length, ended: false };
    } finally {
      for (const fd of later) closeFd(fd);
      if (length > 0) this.#setPeekOffset(-1);
    }
  }

  /** Receives and drops bytes that have arrived, with their descriptors. Throws {@link SystemCallError}. */
  discard(length: number): void {
    for (let rest = length; rest > 0; ) {
      const received = libc.recv(this.#descriptor(), block.address + BYTES, Math.min(rest, BYTES_SIZE), 0);
      rest -= check(received, 'recv', `fd ${this.fd}`) || rest;
    }
  }

  #setPeekOffset(offset: number): void {
    const value = new Uint8Array(Int32Array.of(offset).buffer);
    const result = libc.setsockopt(this.#descriptor(), SOL_SOCKET, SO_PEEK_OFF, value, value.length);
    check(result, 'setsockopt SO_PEEK_OFF', `fd ${this.fd}`);
  }

  /**
   * Sent data that the other end has not yet received, in bytes of kernel memory (SIOCOUTQ).
   */
  unreadBytes(): number {
    const value = new Int32Array(1);
    const bytes = new Uint8Array(value.buffer);
    check(libc.ioctl(this.#descriptor(), SIOCOUTQ, 'void *', bytes), 'ioctl SIOCOUTQ', `fd ${this.fd}`);
    return value[0]!;
  }

  /** Disconnects: the other end reads the end of the stream even if another process holds this socket, too. */
  shutdown(): void {
    libc.shutdown(this.#descriptor(), SHUT_RDWR);
  }

  /** SO_PEERCRED. Throws {@link SystemCallError}. */
  peerCredentials(): PeerCredentials {
    const credentials = new Int32Array(3);
    const length = new Uint32Array([12]);
    check(
      libc.getsockopt(
        this.#descriptor(),
        SOL_SOCKET,
        SO_PEERCRED,
        new Uint8Array(credentials.buffer),
        new Uint8Array(length.buffer),
      ),
      'getsockopt SO_PEERCRED',
      `fd ${this.fd}`,
    );
    const [pid, uid, gid] = credentials;
    return { pid: pid!, uid: uid! >>> 0, gid: gid! >>> 0 };
  }

  /** -1 after close(), so that system calls fail with EBADF: the descriptor's number may have been reused. */
  #descriptor(): number {
    return this.isOpen ? this.fd : -1;
  }
}
