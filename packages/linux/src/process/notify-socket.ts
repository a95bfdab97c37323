import { unlinkSync } from 'node:fs';
import { check, SystemCallError } from '../errors.ts';
import { closeFd } from '../fd.ts';
import * as libc from '../libc.ts';
import { OwnedFd } from '../owned-fd.ts';
import {
  AF_UNIX,
  lastSender,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  socketAddress,
  UnixSocket,
} from '../socket/unix-socket.ts';

const SOL_SOCKET = 1;
const SO_PASSCRED = 16;
/** Longest message, in bytes. Source: NOTIFY_BUFFER_MAX of systemd. */
const MAX_MESSAGE = 4096;

/** A message of sd_notify(3). */
export interface Notification {
  /** The process that has sent it, as the kernel says; 0 if that is unknown. */
  readonly pid: number;
  /** The assignments, such as READY and 1. Of two with one name, the last. */
  readonly variables: ReadonlyMap<string, string>;
  /** Descriptors that came along; they belong to the receiver. */
  readonly fds: readonly number[];
}

/** The receiving end of sd_notify(3), as a service manager has it: the socket in NOTIFY_SOCKET. */
export class NotifySocket extends OwnedFd {
  readonly path: string;
  readonly #socket: UnixSocket;

  private constructor(fd: number, path: string) {
    super(fd);
    this.path = path;
    this.#socket = new UnixSocket(fd);
  }

  /** Creates the socket at `path`, where nothing is yet, for this user only. Throws `SystemCallError`. */
  static listen(path: string): NotifySocket {
    const address = socketAddress(path, 'bind');
    const type = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    const fd = check(libc.socket(AF_UNIX, type, 0), 'socket', 'AF_UNIX');
    try {
      const on = new Uint8Array(Int32Array.of(1).buffer);
      check(libc.setsockopt(fd, SOL_SOCKET, SO_PASSCRED, on, on.length), 'setsockopt SO_PASSCRED', path);
      const mask = libc.umask(0o177);
      const bound = libc.bind(fd, address, address.length);
      const problem = libc.errno();
      libc.umask(mask);
      if (bound === -1) throw new SystemCallError('bind', path, problem);
      return new NotifySocket(fd, path);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
  }

  /** The next message; null if there is none. Throws `SystemCallError`: the message is lost then, as after EMFILE. */
  receive(): Notification | null {
    const bytes = Buffer.alloc(MAX_MESSAGE);
    const fds: number[] = [];
    const length = this.#socket.receive(bytes, fds);
    if (length === -1) return null;
    const lines = bytes.toString('utf8', 0, length).split('\n');
    const assignments = lines.map((line) => /^([^=]+)=(.*)$/s.exec(line)).filter((found) => found !== null);
    return {
      pid: lastSender()?.pid ?? 0,
      variables: new Map(assignments.map(([, name, value]) => [name!, value!])),
      fds,
    };
  }

  /** Removes the socket's file. */
  protected override release(): void {
    try {
      unlinkSync(this.path);
    } catch {
      // Its directory is gone.
    }
  }
}
