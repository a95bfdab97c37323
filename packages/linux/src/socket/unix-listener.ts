import {
  type BigIntStats,
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  unlinkSync,
} from 'node:fs';
import { constants as os } from 'node:os';
import { EAGAIN } from '../constants.ts';
import { check, pathError, SystemCallError } from '../errors.ts';
import { closeFd, duplicateFd, setNonBlocking } from '../fd.ts';
import * as libc from '../libc.ts';
import { OwnedFd } from '../owned-fd.ts';
import {
  AF_UNIX,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  socketAddress,
  UnixSocket,
} from './unix-socket.ts';

const O_PATH = 0o10000000;
const { EEXIST, EADDRINUSE, ECONNABORTED, EPROTOTYPE, ECONNREFUSED, ENOENT, EINVAL } = os.errno;
const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SO_ACCEPTCONN = 30;

function statusOf(path: string): BigIntStats | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false });
}

function isSameFile(a: BigIntStats, b: BigIntStats | undefined): boolean {
  return b !== undefined && a.dev === b.dev && a.ino === b.ino;
}

/**
 * Whether a running process owns the socket. Tests it with a datagram socket, whose connect(2) always fails, so that the owner
 * is not disturbed, and which also works before the owner has called listen(2).
 */
function isOwned(path: string, address: Uint8Array): boolean {
  const probe = check(libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket', 'AF_UNIX');
  try {
    if (libc.connect(probe, address, address.length) === 0) return true;
    const errno = libc.errno();
    if (errno === ECONNREFUSED || errno === ENOENT) return false;
    if (errno === EPROTOTYPE) return true;
    throw new SystemCallError('connect', path, errno);
  } finally {
    closeFd(probe);
  }
}

/** Removes the socket of a dead process at `path`; throws if there is anything else. */
function clearPath(path: string, address: Uint8Array): void {
  const found = statusOf(path);
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new SystemCallError(
      'bind',
      path,
      EEXIST,
      'something that is no socket is there: choose another path',
    );
  }
  if (isOwned(path, address)) {
    throw new SystemCallError(
      'bind',
      path,
      EADDRINUSE,
      'another server answers there: stop it, or choose another path',
    );
  }
  // Another process may have replaced it meanwhile, by a socket with another inode.
  if (isSameFile(found, statusOf(path))) unlinkSync(path);
}

/**
 * Removes the socket of a dead process at `path`. Returns whether it did: false if a process owns the socket, something else
 * is there, or this user may not look or remove it. The owner of a socket is not disturbed.
 */
export function removeDeadSocket(path: string): boolean {
  try {
    const found = statusOf(path);
    if (found === undefined || !found.isSocket() || isOwned(path, socketAddress(path, 'connect')))
      return false;
    if (!isSameFile(found, statusOf(path))) return false;
    unlinkSync(path);
    return true;
  } catch {
    return false;
  }
}

function unlinkIfSame(path: string, file: BigIntStats): void {
  try {
    if (isSameFile(file, statusOf(path))) unlinkSync(path);
  } catch {
    // The directory is gone or no longer accessible.
  }
}

/** Creates the socket file with these permissions. Returns the file that the path then refers to, possibly another one. */
function bind(fd: number, path: string, address: Uint8Array, mode: number): BigIntStats | undefined {
  const before = libc.umask(0o777 & ~mode);
  const result = libc.bind(fd, address, address.length);
  const errno = libc.errno();
  libc.umask(before);
  if (result === -1) throw pathError('bind', path, errno);
  return statusOf(path);
}

/**
 * Changes group and permissions of a socket file that was bound without any permissions. If others can write to its
 * directory, the path may refer to another file by now, so the file is opened, checked and changed by its descriptor.
 */
function setAccess(path: string, group: number, mode: number): void {
  let file: number | undefined;
  try {
    file = openSync(path, O_PATH | constants.O_NOFOLLOW);
    const status = fstatSync(file);
    const isOurs = status.isSocket() && status.uid === process.geteuid?.() && status.nlink === 1;
    if (!isOurs || (status.mode & 0o777) !== 0) {
      const remedy = 'choose a directory where only this user can write';
      throw new SystemCallError('bind', path, EEXIST, `something else has taken its place: ${remedy}`);
    }
    chownSync(`/proc/self/fd/${file}`, -1, group);
    chmodSync(`/proc/self/fd/${file}`, mode);
  } catch (error) {
    if (error instanceof SystemCallError) throw error;
    const { errno = 0, syscall = 'open' } = error as NodeJS.ErrnoException;
    const remedy = syscall === 'chown' ? `only root and members of group ${group} may choose it` : undefined;
    throw new SystemCallError(syscall, path, -errno, remedy);
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

function socketOption(fd: number, option: number, name: string): number {
  const value = new Int32Array(1);
  const length = new Uint8Array(new Uint32Array([4]).buffer);
  check(
    libc.getsockopt(fd, SOL_SOCKET, option, new Uint8Array(value.buffer), length),
    `getsockopt ${name}`,
    `fd ${fd}`,
  );
  return value[0]!;
}

/** The path of a listening Unix stream socket. Throws {@link SystemCallError} for any other descriptor. */
export function listeningPath(fd: number): string {
  const isListening = socketOption(fd, SO_ACCEPTCONN, 'SO_ACCEPTCONN') === 1;
  const address = new Uint8Array(128);
  const length = new Uint32Array([address.length]);
  check(libc.getsockname(fd, address, new Uint8Array(length.buffer)), 'getsockname', `fd ${fd}`);
  const isStream = socketOption(fd, SO_TYPE, 'SO_TYPE') === SOCK_STREAM;
  const isUnix = (address[0]! | (address[1]! << 8)) === AF_UNIX;
  const end = address.indexOf(0, 2);
  const path = Buffer.from(address.subarray(2, end === -1 ? length[0] : end)).toString();
  if (isUnix && isStream && isListening && path !== '') return path;
  throw new SystemCallError(
    'getsockname',
    `fd ${fd}`,
    EINVAL,
    'must be a Unix stream socket that listens at a path',
  );
}

/** A listening Unix stream socket. Non-blocking and close-on-exec. */
export class UnixListener extends OwnedFd {
  readonly path: string;
  #file: BigIntStats | undefined;

  private constructor(fd: number, path: string, file: BigIntStats | undefined) {
    super(fd);
    this.path = path;
    this.#file = file;
  }

  /**
   * Listens at `path`, replacing the socket of a dead process. `backlog`: number of clients that may wait for {@link accept};
   * `mode` and `group` (a gid): permissions and group of the socket file, in effect from its creation. Throws
   * {@link SystemCallError}: EADDRINUSE if another process owns the socket, EEXIST if the path is not a socket, ENAMETOOLONG,
   * EPERM if this user may not assign the group, and the errors of bind(2).
   */
  static listen(
    path: string,
    options: { backlog?: number; mode?: number; group?: number | undefined } = {},
  ): UnixListener {
    const address = socketAddress(path, 'bind');
    clearPath(path, address);
    const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    const fd = check(libc.socket(AF_UNIX, type, 0), 'socket', 'AF_UNIX');
    let file: BigIntStats | undefined;
    try {
      const { mode = 0o600, group, backlog = 128 } = options;
      file = bind(fd, path, address, group === undefined ? mode : 0);
      if (group !== undefined) setAccess(path, group, mode);
      check(libc.listen(fd, backlog), 'listen', path);
      return new UnixListener(fd, path, file);
    } catch (error) {
      closeFd(fd);
      if (file !== undefined) unlinkIfSame(path, file);
      throw error;
    }
  }

  /**
   * Creates a listener on a duplicate of `fd`, a socket that another owner has created, such as a service manager. It does not
   * remove the socket file. Throws {@link SystemCallError}: EINVAL if it is not a listening Unix stream socket with a path,
   * ENOTSOCK.
   */
  static adopt(fd: number): UnixListener {
    const path = listeningPath(fd);
    const own = duplicateFd(fd);
    setNonBlocking(own);
    return new UnixListener(own, path, undefined);
  }

  /**
   * Takes ownership of a listening socket that an earlier process of this user has created by {@link listen}, and of its socket
   * file. Throws {@link SystemCallError}, having closed it: EINVAL if it is not a listening Unix stream socket with a path,
   * ENOENT if the file is gone, EEXIST if something else has taken its place.
   */
  static restore(fd: number): UnixListener {
    try {
      const path = listeningPath(fd);
      const file = statusOf(path);
      if (file === undefined) throw new SystemCallError('lstat', path, ENOENT, 'the socket file is gone');
      if (!file.isSocket() || file.uid !== BigInt(process.geteuid?.() ?? 0)) {
        throw new SystemCallError(
          'lstat',
          path,
          EEXIST,
          'something else has taken the place of the socket file',
        );
      }
      setNonBlocking(fd);
      return new UnixListener(fd, path, file);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
  }

  /** Closes the socket and leaves its file, for the process that continues with a duplicate of it. */
  leave(): void {
    this.#file = undefined;
    this.close();
  }

  /**
   * Accepts the next client, or returns null if none is waiting. Throws {@link SystemCallError}: after EMFILE, ENFILE, ENOMEM
   * or ENOBUFS the client is still waiting and the listener stays readable, so stop polling it for a while.
   */
  accept(): UnixSocket | null {
    const fd = this.isOpen ? this.fd : -1;
    const client = libc.accept4(fd, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client !== -1) return new UnixSocket(client);
    const errno = libc.errno();
    if (errno === EAGAIN || errno === ECONNABORTED) return null;
    throw new SystemCallError('accept4', this.path, errno);
  }

  /** Removes the socket file unless it has been replaced, or left. */
  protected override release(): void {
    if (this.#file !== undefined) unlinkIfSame(this.path, this.#file);
  }
}
