import { SystemCallError } from '@ivshmem/linux';
import { Acceptor, UnixListener, type UnixSocket } from '@ivshmem/linux/socket';
import { mainPoller, type Poller } from '@ivshmem/linux/wait';
import { ControlConnection, type ControlHandler } from './control-connection.ts';
import { controlPath, controlSockets, ownControlDirectory } from './directory.ts';

/** Maximum number of connections; further ones are rejected. */
const MAX_CONNECTIONS = 16;
/** Processes in several PID namespaces can have the same ID. */
const NAMES = 16;

export interface ControlServerOptions {
  /** Default: {@link ownControlDirectory}. */
  readonly directory?: string;
  readonly poller?: Poller;
}

/**
 * The control socket of this process: a client sends one line of JSON with a verb, and receives lines of JSON. Only the user
 * of this process and root can connect. While no client is connected, nothing runs. docs/monitoring.md describes the protocol.
 */
export class ControlServer {
  readonly path: string;
  readonly #listener: UnixListener;
  readonly #acceptor: Acceptor;
  readonly #poller: Poller;
  readonly #handlers = new Map<string, ControlHandler>();
  readonly #connections = new Set<ControlConnection>();

  private constructor(listener: UnixListener, poller: Poller) {
    this.path = listener.path;
    this.#listener = listener;
    this.#poller = poller;
    this.#acceptor = new Acceptor(listener, poller, {
      accepted: (socket) => this.#accept(socket),
      rejected: (socket) => socket.close(),
      warn() {},
    });
  }

  /**
   * Listens in the runtime directory as `COMMAND-PID`, and removes the sockets of dead processes there. Throws an Error of one
   * line, such as SystemCallError, if that is not possible; the process can run without a control socket.
   */
  static listen(command: string, options: ControlServerOptions = {}): ControlServer {
    const { directory = ownControlDirectory(), poller = mainPoller } = options;
    controlSockets([directory]);
    const listener = listenIn(directory, `${command}-${process.pid}`);
    try {
      return new ControlServer(listener, poller);
    } catch (error) {
      listener.close();
      throw error;
    }
  }

  /** Answers requests with this verb from now on. */
  handle(verb: string, handler: ControlHandler): void {
    this.#handlers.set(verb, handler);
  }

  #accept(socket: UnixSocket): void {
    if (this.#connections.size >= MAX_CONNECTIONS) {
      socket.close();
      return;
    }
    const connection: ControlConnection = new ControlConnection(socket, this.#poller, {
      handlerOf: (verb) => this.#handlers.get(verb),
      verbs: () => [...this.#handlers.keys()],
      closed: () => this.#connections.delete(connection),
    });
    this.#connections.add(connection);
    connection.begin();
  }

  /** Disconnects all clients and removes the socket. Calling it again has no effect. */
  close(): void {
    this.#acceptor.close();
    this.#listener.close();
    for (const connection of this.#connections) connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function listenIn(directory: string, name: string): UnixListener {
  for (let attempt = 1; ; attempt++) {
    const path = controlPath(directory, attempt === 1 ? name : `${name}-${attempt}`);
    try {
      return UnixListener.listen(path, { mode: 0o600 });
    } catch (error) {
      const isTaken = error instanceof SystemCallError && error.code === 'EADDRINUSE';
      if (!isTaken || attempt === NAMES) throw error;
    }
  }
}
