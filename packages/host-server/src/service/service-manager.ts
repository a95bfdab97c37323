import { closeFd } from '@ivshmem/linux';
import { type Environment, isStored, passedDescriptors } from '@ivshmem/linux/process';
import { listeningPath, UnixListener } from '@ivshmem/linux/socket';

/**
 * Whether a service manager such as systemd started this process directly. A shell inside a service inherits INVOCATION_ID,
 * too, so that alone is no proof. Source: systemd.exec(5), sd_notify(3), sd_listen_fds(3).
 */
export function startedByServiceManager(environment: Environment, pid: number): boolean {
  const { NOTIFY_SOCKET, LISTEN_FDS, LISTEN_PID, INVOCATION_ID, SYSTEMD_EXEC_PID } = environment;
  if (NOTIFY_SOCKET) return true;
  if (LISTEN_FDS && Number(LISTEN_PID) === pid) return true;
  return Boolean(INVOCATION_ID) && (SYSTEMD_EXEC_PID === undefined || Number(SYSTEMD_EXEC_PID) === pid);
}

/** The sockets passed by a service manager. They stay open, so that a link can be restarted on its socket. */
export class ActivatedSockets {
  /** Descriptors by path. */
  readonly #fds = new Map<string, number>();

  /**
   * Takes ownership of the descriptors in LISTEN_FDS, except those of the descriptor store; none if LISTEN_PID names another
   * process. Throws Error if one is not a listening Unix stream socket, or if two have the same path.
   */
  constructor(environment: Environment, pid: number) {
    for (const { fd, name } of passedDescriptors(environment, pid)) {
      if (isStored(name)) continue;
      try {
        const path = listeningPath(fd);
        if (this.#fds.has(path)) throw new Error(`two sockets have the path ${path}`);
        this.#fds.set(path, fd);
      } catch (error) {
        throw new Error(`LISTEN_FDS, descriptor ${fd}: ${(error as Error).message}`);
      }
    }
  }

  /** The paths of the sockets. */
  get paths(): readonly string[] {
    return [...this.#fds.keys()];
  }

  /** Returns a listener on the socket at `path`, owned by the caller, or undefined if none. Throws SystemCallError. */
  listenerFor(path: string): UnixListener | undefined {
    const fd = this.#fds.get(path);
    return fd === undefined ? undefined : UnixListener.adopt(fd);
  }

  /** Closes the descriptors; the service manager keeps its own. */
  close(): void {
    for (const fd of this.#fds.values()) closeFd(fd);
    this.#fds.clear();
  }
}
