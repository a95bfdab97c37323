import { randomFill } from 'node:crypto';
import { fstatSync } from 'node:fs';
import { constants } from 'node:os';
import { O_CLOEXEC, O_NONBLOCK, O_RDONLY } from '../constants.ts';
import { check, SystemCallError } from '../errors.ts';
import { closeFd, duplicateFd } from '../fd.ts';
import * as libc from '../libc.ts';
import { OwnedFd } from '../owned-fd.ts';
import { setInterface } from './interface.ts';
import { namespaceLimits } from './namespace-limits.ts';

const CLONE_NEWNET = 0x40000000;
const NS_GET_NSTYPE = 0xb703;
const { ENOENT, EPERM, EACCES, ENOTTY, ENOSPC } = constants.errno;

/** Directory of named network namespaces, shared with iproute2. */
export const NETNS_DIRECTORY = '/run/netns';

const PRIVILEGE =
  'needs CAP_SYS_ADMIN: run as root; in a container, start it with --cap-add SYS_ADMIN and without a seccomp profile that forbids it; for a namespace of a rootless container, enter its user namespace first (nsenter -t PID -U --preserve-credentials)';
const FOREIGN = "is another user's: run as that user, or as root";

function privileged(result: number, call: string, subject: string): void {
  if (result !== -1) return;
  const errno = libc.errno();
  const limit = errno === ENOSPC ? namespaceLimits('net') : undefined;
  throw new SystemCallError(call, subject, errno, errno === EPERM ? PRIVILEGE : limit);
}

let poolStarted = false;

/**
 * libuv's pool threads are created on first use and stay in the namespace of the creating thread. They serve the whole
 * process, so they must not be created while that thread is in another namespace.
 */
function startThreadPool(): void {
  if (poolStarted) return;
  poolStarted = true;
  randomFill(new Uint8Array(1), () => {});
}

function openNamespace(path: string): number {
  // Non-blocking, in case the path is a FIFO.
  const fd = libc.open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 'uint', 0);
  if (fd === -1) {
    const errno = libc.errno();
    if (errno === EACCES || errno === EPERM) throw new SystemCallError('open', path, errno, FOREIGN);
    const remedy = path.startsWith(NETNS_DIRECTORY)
      ? `no network namespace of this name; make it with "ip netns add ${path.slice(NETNS_DIRECTORY.length + 1)}"`
      : 'no such process or descriptor';
    throw new SystemCallError('open', path, errno, errno === ENOENT ? remedy : undefined);
  }
  const type = libc.ioctlInt(fd, NS_GET_NSTYPE, 'long', 0);
  if (type === CLONE_NEWNET) return fd;
  closeFd(fd);
  throw new SystemCallError('NS_GET_NSTYPE', path, ENOTTY, 'is no network namespace');
}

/**
 * A network namespace, with separate interfaces, addresses, routes and sockets. Each thread is in one. An anonymous namespace
 * exists as long as it has an open descriptor, a thread or an open socket; its interfaces are deleted with it. The descriptor
 * is close-on-exec.
 */
export class Netns extends OwnedFd {
  /** The namespace of the calling thread. Throws {@link SystemCallError}. */
  static current(): Netns {
    return new Netns(openNamespace('/proc/thread-self/ns/net'));
  }

  /**
   * Creates an anonymous namespace with `lo` up; the calling thread stays in its namespace. Throws {@link SystemCallError}.
   */
  static create(): Netns {
    startThreadPool();
    using previous = Netns.current();
    privileged(libc.unshare(CLONE_NEWNET), 'unshare', 'network namespace');
    return inside(previous, () => {
      const created = Netns.current();
      try {
        setInterface('lo', { up: true });
        return created;
      } catch (error) {
        created.close();
        throw error;
      }
    });
  }

  /**
   * Opens a namespace by its name under /run/netns, or by a path, such as `/proc/123/ns/net` or another {@link path}. Throws
   * {@link SystemCallError} (ENOTTY if the file is not a namespace).
   */
  static open(nameOrPath: string): Netns {
    return new Netns(
      openNamespace(nameOrPath.includes('/') ? nameOrPath : `${NETNS_DIRECTORY}/${nameOrPath}`),
    );
  }

  /** Whether a name or path for {@link open} still refers to the namespace `id`; true if that cannot be checked. */
  static isNamed(nameOrPath: string, id: string): boolean {
    try {
      using netns = Netns.open(nameOrPath);
      return netns.id === id;
    } catch (error) {
      const { code } = error as SystemCallError;
      // A name is a plain file before it is mounted; ESRCH: the process has exited meanwhile.
      return code !== 'ENOENT' && code !== 'ENOTTY' && code !== 'ESRCH';
    }
  }

  /** A path by which any thread or process of this PID namespace can open it, until it is closed. */
  get path(): string {
    return `/proc/${process.pid}/fd/${this.fd}`;
  }

  /** Identifies the namespace: `net:[4026531840]`, as in the links of /proc/<pid>/ns. */
  get id(): string {
    return `net:[${fstatSync(this.fd).ino}]`;
  }

  /**
   * Calls `fn` with the calling thread in this namespace, and always returns the thread to its namespace afterwards. `fn` must
   * be synchronous, or other code of the thread would run in here. Processes and workers that it starts stay in this
   * namespace. Throws what `fn` throws, {@link SystemCallError} if the namespace cannot be entered, and TypeError if `fn`
   * returns a promise.
   */
  run<T>(fn: () => T): T {
    using previous = Netns.current();
    this.enter();
    const result = inside(previous, fn);
    if (result instanceof Promise) {
      result.catch(() => {});
      throw new TypeError(
        'Netns.run: the function must be synchronous; enter() from a worker to stay inside',
      );
    }
    return result;
  }

  /** Moves the calling thread into this namespace permanently; meant for workers. Throws {@link SystemCallError}. */
  enter(): void {
    startThreadPool();
    privileged(libc.setns(this.fd, CLONE_NEWNET), 'setns', `network namespace ${this.path}`);
  }

  /** Returns another handle of the same namespace. Throws {@link SystemCallError}. */
  duplicate(): Netns {
    return new Netns(duplicateFd(this.fd));
  }
}

/** Calls `fn`, then returns the thread to `previous`. */
function inside<T>(previous: Netns, fn: () => T): T {
  let failure: { readonly error: unknown } | undefined;
  let result: T | undefined;
  try {
    result = fn();
  } catch (error) {
    failure = { error };
  }
  try {
    check(libc.setns(previous.fd, CLONE_NEWNET), 'setns', 'the previous network namespace');
  } catch (error) {
    // The thread is stuck in the wrong namespace: report that even if no caller catches the error.
    const message = 'this thread is stuck in another network namespace, and should end';
    process.emitWarning(message, 'NetnsWarning');
    throw new AggregateError(failure ? [error, failure.error] : [error], message);
  }
  if (failure !== undefined) throw failure.error;
  return result as T;
}
