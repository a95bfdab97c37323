import { closeFd, SystemCallError } from '@ivshmem/linux';
import { isFileInUse } from '@ivshmem/linux/process';
import { EPOLLIN, isEventFd, type Poller, prepareSignals, Timer } from '@ivshmem/linux/wait';
import { type InitMessage, ServerProtocolError } from '../protocol/server-messages.ts';
import { HostPort } from './host-port.ts';
import type { Port, PortEvent } from './port.ts';
import { type ReceivedMessage, ServerConnection } from './server-connection.ts';
import { isSealed, ServerTrust } from './server-trust.ts';
import { SharedMemory } from './shared-memory.ts';

/** Time limit for the server's first messages, in ms. */
const PATIENCE = 5000;
/** Messages that are handled before other descriptors get their turn. */
const MESSAGES_AT_ONCE = 64;
/** A killed process closes its sockets up to this long before it releases its files, in ms; and how often to check. */
const DYING = 500;
const LOOK_INTERVAL = 1;
const never = new Int32Array(new SharedArrayBuffer(4));

const connectRemedies: Record<string, string> = {
  ENOENT: 'there is no socket: start a host server, or say where its socket is',
  ECONNREFUSED: 'no host server answers there: start one, or say where its socket is',
  EACCES: 'needs permission to write to the socket: run as the user of the host server',
  EAGAIN: 'too many clients wait for the host server: try again later',
};

/** A port that is being opened. */
export interface OpeningPort {
  /** Cancels. No effect once the port was opened, or has failed to open. */
  cancel(): void;
}

/** Called once, with the port, which belongs to the receiver, or with an Error of one line. */
export type PortOpened = (opened: Port | Error) => void;

/** The same for ports that are known to be in a process of the host. */
export type HostPortOpened = (opened: HostPort | Error) => void;

/**
 * A port on a host server: the server passes the memory and the eventfds of all peers, and reports which peers join and leave.
 * Should the server violate its protocol, it counts as gone.
 */
class ServerPort extends HostPort {
  readonly #connection: ServerConnection;
  readonly #poller: Poller;
  /** The server has marked the memory as in use, see markFileInUse in packages/linux. */
  readonly #isMarked: boolean;
  /** By peer, the eventfds received so far of those whose vectors have not all arrived. */
  readonly #incomplete = new Map<number, number[]>();
  #ready: (() => void) | undefined;
  #lost: ((reason: Error) => void) | undefined;
  #connected = true;

  /** Takes over memory and connection; `ready` is called once this peer's vectors have arrived, `lost` if they do not. */
  constructor(
    init: InitMessage,
    memory: SharedMemory,
    poller: Poller,
    connection: ServerConnection,
    ready: () => void,
    lost: (reason: Error) => void,
  ) {
    super(init, memory, poller);
    this.#connection = connection;
    this.#poller = poller;
    this.#isMarked = isFileInUse(memory.fd);
    this.#ready = ready;
    this.#lost = lost;
  }

  /** Handles messages of the server; if there are many, some are left, and the connection stays readable. */
  read(): void {
    for (let messages = 0; messages < MESSAGES_AT_ONCE && this.#connected; messages++) {
      let news: PortEvent | 'ready' | null;
      try {
        const received = this.#connection.read();
        if (received === 'wait') return;
        if (received === 'end') {
          this.#lose(null);
          return;
        }
        news = this.#take(received);
      } catch (error) {
        this.#lose(error as Error);
        return;
      }
      // Not within try: what a handler throws is not the server's fault. It may also close this port.
      if (news !== null) this.#deliver(news);
    }
  }

  /** Takes ownership of a message's descriptor, and applies the message. Returns the event to report, if any. */
  #take(received: ReceivedMessage): PortEvent | 'ready' | null {
    const { message } = received;
    if (message.type === 'init') throw new ServerProtocolError('server sent INIT twice');
    if (message.type === 'peer-gone') {
      this.#dropIncomplete(message.id);
      if (message.id === this.id) throw new ServerProtocolError('server sent PEER_GONE for this peer itself');
      return this.removePeer(message.id) ? { type: 'peer-gone', peer: message.id } : null;
    }
    const fds = this.#incomplete.get(message.id) ?? [];
    fds.push(received.fd as number);
    this.#incomplete.set(message.id, fds);
    if (!isEventFd(received.fd as number)) {
      throw new ServerProtocolError(
        `server sent vector ${message.vector} of peer ${message.id} with a descriptor that is no eventfd`,
      );
    }
    if (message.vector !== fds.length - 1 || this.doorbells(message.id).length > 0) {
      throw new ServerProtocolError(
        `server sent vector ${message.vector} of peer ${message.id}: expected ${this.doorbells(message.id).length || fds.length - 1}`,
      );
    }
    if (fds.length < this.vectors) return null;
    this.#incomplete.delete(message.id);
    if (message.id === this.id) {
      this.listen(fds);
      return 'ready';
    }
    this.addPeer(message.id, fds);
    return { type: 'peer-joined', peer: message.id };
  }

  #deliver(news: PortEvent | 'ready'): void {
    if (news === 'ready') {
      const ready = this.#ready;
      this.#ready = undefined;
      this.#lost = undefined;
      ready?.();
      return;
    }
    this.report(news);
    // Source: seed, the device treats it as an interrupt on vector 0.
    if (news.type === 'peer-gone') this.interrupt(0);
  }

  /** The connection has ended: by the server, or by this side for what the server did wrong. */
  #lose(error: Error | null): void {
    this.#disconnect();
    const usable = error === null ? !this.#isEvicted() : !this.#isServerAlive();
    const reason =
      error?.message ??
      (usable
        ? 'the host server is gone'
        : 'the host server has disconnected this peer, which did not read its messages in time (see its --evict-after)');
    if (!usable) this.resign();
    if (this.#lost !== undefined) this.#lost(new Error(reason));
    else this.report({ type: 'provider-gone', reason, usable });
  }

  /**
   * Whether this peer was evicted: the server still runs, and may assign the ID to another peer. If the server marked the
   * memory, it has died if the mark disappears. If not, the state table decides: a server that evicts a peer sets its entry
   * to 0.
   */
  #isEvicted(): boolean {
    if (!this.#isMarked) return this.isStateOverwritten;
    for (let looks = 0; looks < DYING / LOOK_INTERVAL; looks++) {
      if (!this.#isServerAlive()) return false;
      Atomics.wait(never, 0, 0, LOOK_INTERVAL);
    }
    return true;
  }

  #isServerAlive(): boolean {
    return this.#isMarked && isFileInUse(this.memoryFd);
  }

  #dropIncomplete(peer: number): void {
    for (const fd of this.#incomplete.get(peer) ?? []) closeFd(fd);
    this.#incomplete.delete(peer);
  }

  #disconnect(): void {
    // The descriptor's number may have been reused by now.
    if (!this.#connected) return;
    this.#connected = false;
    this.#poller.remove(this.#connection.fd);
    this.#connection.close();
  }

  override close(): void {
    super.close();
    this.#disconnect();
    for (const peer of [...this.#incomplete.keys()]) this.#dropIncomplete(peer);
  }
}

/**
 * Connects to the host server at `socketPath`, which has 5 s to send everything. Reasons for failure: no server listens at
 * the path, its protocol is another one, it has no room for another peer, the memory is smaller than announced, or `trust`
 * does not allow this server to follow the previous one.
 */
export function openServerPort(
  socketPath: string,
  poller: Poller,
  opened: HostPortOpened,
  trust = new ServerTrust(),
): OpeningPort {
  const refuse = (error: Error) => {
    opened(new Error(`host server at ${socketPath}: ${error.message}`, { cause: error }));
    return { cancel() {} };
  };
  let connection: ServerConnection;
  try {
    prepareSignals();
    connection = ServerConnection.connect(socketPath);
  } catch (error) {
    opened(withRemedy(error as Error));
    return { cancel() {} };
  }
  let uid: number;
  try {
    ({ uid } = connection.credentials);
    trust.checkUser(uid);
  } catch (error) {
    connection.close();
    return refuse(error as Error);
  }
  let port: ServerPort | undefined;
  let timer: Timer | undefined;
  const giveUp = () => {
    timer?.close();
    timer = undefined;
    if (port === undefined) {
      poller.remove(connection.fd);
      connection.close();
    } else {
      port.close();
    }
  };
  const fail = (error: Error) => {
    giveUp();
    refuse(error);
  };
  const succeed = () => {
    timer?.close();
    timer = undefined;
    trust.accept({ uid, sealed: isSealed(port!.memoryFd) });
    opened(port!);
  };
  const onReadable = () => {
    if (port !== undefined) return port.read();
    try {
      const received = connection.read();
      if (received === 'wait') return;
      if (received === 'end') {
        throw new Error(
          'closed the connection at once: it has no room for another peer, or speaks another protocol',
        );
      }
      port = introduce(received, poller, connection, trust, succeed, fail);
    } catch (error) {
      return fail(error as Error);
    }
    port.read();
  };
  try {
    timer = new Timer(poller, () =>
      fail(new Error(`no answer in ${PATIENCE} ms: is it an ivshmem v2 host server?`)),
    );
    timer.after(PATIENCE);
    poller.add(connection.fd, EPOLLIN, onReadable);
  } catch (error) {
    fail(error as Error);
  }
  return {
    cancel() {
      if (timer !== undefined) giveUp();
    },
  };
}

function withRemedy(error: Error): Error {
  if (!(error instanceof SystemCallError) || error.syscall !== 'connect') return error;
  return new SystemCallError(error.syscall, error.subject, error.errno, connectRemedies[error.code]);
}

function introduce(
  received: ReceivedMessage,
  poller: Poller,
  connection: ServerConnection,
  trust: ServerTrust,
  ready: () => void,
  lost: (error: Error) => void,
): ServerPort {
  const { message, fd } = received;
  if (message.type !== 'init') throw new ServerProtocolError(`server sent ${message.type} before INIT`);
  try {
    trust.checkMemory(isSealed(fd!));
  } catch (error) {
    closeFd(fd!);
    throw error;
  }
  const memory = new SharedMemory(fd!, message.id, message.maxPeers, message.outputSectionSize);
  return new ServerPort(message, memory, poller, connection, ready, lost);
}
