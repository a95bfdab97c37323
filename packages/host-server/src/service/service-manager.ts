import { closeFd } from '@ivshmem/linux';
import { listeningPath, UnixListener } from '@ivshmem/linux/socket';

/** The first descriptor that a service manager passes. Source: sd_listen_fds(3). */
const LISTEN_FDS_START = 3;

/** The environment of a process, as `process.env`. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Whether a service manager such as systemd has started this process itself, and not a shell below something that it
 * has started: those inherit INVOCATION_ID, too. Source: systemd.exec(5), sd_notify(3), sd_listen_fds(3).
 */
export function startedByServiceManager(environment: Environment, pid: number): boolean {
  const { NOTIFY_SOCKET, LISTEN_FDS, LISTEN_PID, INVOCATION_ID, SYSTEMD_EXEC_PID } = environment;
  if (NOTIFY_SOCKET) return true;
  if (LISTEN_FDS && Number(LISTEN_PID) === pid) return true;
  return Boolean(INVOCATION_ID) && (SYSTEMD_EXEC_PID === undefined || Number(SYSTEMD_EXEC_PID) === pid);
}

/** The sockets that a service manager has passed to this process; they stay open, for links that come back. */
export class ActivatedSockets {
  /** Descriptors by path. */
  readonly #fds = new Map<string, number>();

  /**
   * Takes them over as LISTEN_FDS and LISTEN_PID say; none where these are for another process. Throws Error where
   * one is no Unix stream socket that listens, or two listen at the same path.
   */
  constructor(environment: Environment, pid: number) {
    const count = Number(environment.LISTEN_FDS ?? 0);
    if (!Number.isInteger(count) || count < 0 || Number(environment.LISTEN_PID) !== pid) return;
    for (let fd = LISTEN_FDS_START; fd < LISTEN_FDS_START + count; fd++) {
      try {
        const path = listeningPath(fd);
        if (this.#fds.has(path)) throw new Error(`two sockets listen at ${path}`);
        this.#fds.set(path, fd);
      } catch (error) {
        throw new Error(`LISTEN_FDS, descriptor ${fd}: ${(error as Error).message}`);
      }
    }
  }

  /** Where they listen. */
  get paths(): readonly string[] {
    return [...this.#fds.keys()];
  }

  /** A listener on the socket at `path`, which the caller owns; undefined where there is none. Throws SystemCallError. */
  listenerFor(path: string): UnixListener | undefined {
    const fd = this.#fds.get(path);
    return fd === undefined ? undefined : UnixListener.adopt(fd);
  }

  /** Closes them; the service manager goes on to listen. */
  close(): void {
    for (const fd of this.#fds.values()) closeFd(fd);
    this.#fds.clear();
  }
}
