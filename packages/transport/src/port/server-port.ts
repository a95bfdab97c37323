import { closeFd } from '@ivshmem/linux';
import { type DescriptorStore, isFileInUse } from '@ivshmem/linux/process';
import { EPOLLET, EPOLLIN, isEventFd, type Poller } from '@ivshmem/linux/wait';
import { type InitMessage, ServerProtocolError } from '../protocol/server-messages.ts';
import { HostPort } from './host-port.ts';
import type { PortEvent } from './port.ts';
import { PortRecord, type ServerAddress } from './port-record.ts';
import type { ReceivedMessage, ServerConnection } from './server-connection.ts';
import type { SharedMemory } from './shared-memory.ts';

/** Messages that are handled before other descriptors get their turn. */
const MESSAGES_AT_ONCE = 64;
/** A killed process closes its sockets up to this long before it releases its files, in ms; and how often to check. */
const DYING = 500;
const LOOK_INTERVAL = 1;
const never = new Int32Array(new SharedArrayBuffer(4));

/** What becomes of a port whose vectors have not all arrived. */
export interface PortReadiness {
  /** Called once they have. */
  ready(): void;
  /** Called instead if they cannot. */
  lost(reason: Error): void;
}

/**
 * A port on a host server: the server passes the memory and the eventfds of all peers, and reports which peers join and leave.
 * Should the server violate its protocol, it counts as gone.
 */
export class ServerPort extends HostPort {
  readonly #init: InitMessage;
  readonly #server: ServerAddress;
  readonly #connection: ServerConnection;
  readonly #poller: Poller;
  /** The server has marked the memory as in use, see markFileInUse in packages/linux. */
  readonly #isMarked: boolean;
  /** By peer, the eventfds received so far of those whose vectors have not all arrived. */
  readonly #incomplete = new Map<number, number[]>();
  #readiness: PortReadiness | undefined;
  #connected = true;
  #record: PortRecord | undefined;
  /** The next message may be one that the process before has stored, but not read. */
  #mayRepeat = false;

  /** Takes over memory and connection. */
  constructor(
    init: InitMessage,
    server: ServerAddress,
    memory: SharedMemory,
    poller: Poller,
    connection: ServerConnection,
    readiness?: PortReadiness,
  ) {
    super(init, memory, poller);
    this.#init = init;
    this.#server = server;
    this.#connection = connection;
    this.#poller = poller;
    this.#isMarked = isFileInUse(memory.fd);
    this.#readiness = readiness;
  }

  /** Whether the server has not gone away. */
  get connected(): boolean {
    return this.#connected;
  }

  /** Whether the memory is marked as in use by a server that is alive. */
  get isServerAlive(): boolean {
    return this.#isMarked && isFileInUse(this.memoryFd);
  }

  /**
   * Keeps the port in `store`, which must be empty: a process that follows this one continues on it (`restoreServerPort`), until
   * the port is closed without {@link detach}. If the store fails, now or later, `log` is called with a line, and the port is not
   * kept any more.
   */
  keep(store: DescriptorStore, log: (text: string) => void): void {
    try {
      if (this.#connected && !this.#connection.isBetweenMessages) {
        throw new Error('the host server has sent a part of a message');
      }
      const record = PortRecord.create(store, {
        ...this.#server,
        init: this.#init,
        marked: this.#isMarked,
        memoryFd: this.memoryFd,
        serverFd: this.#connected ? this.#connection.fd : undefined,
        eventFds: Array.from(
          { length: this.maxPeers },
          (_, peer) => this.#incomplete.get(peer) ?? this.doorbells(peer),
        ),
      });
      this.#keepBy(record, log);
    } catch (error) {
      log(notKept(error as Error));
    }
  }

  /**
   * Continues with what the process before has left. Takes ownership of the eventfds, of which this peer's are complete.
   */
  resume(
    record: PortRecord,
    eventFds: readonly (readonly number[])[],
    connected: boolean,
    log: (text: string) => void,
  ): void {
    this.adoptState();
    for (const [peer, fds] of eventFds.entries()) {
      if (peer === this.id) this.listen(fds);
      else if (fds.length === this.vectors) this.addPeer(peer, fds);
      else if (fds.length > 0) this.#incomplete.set(peer, [...fds]);
    }
    this.#connected = connected;
    this.#mayRepeat = true;
    this.#keepBy(record, log);
  }

  #keepBy(record: PortRecord, log: (text: string) => void): void {
    this.#record = record;
    record.onFailure((error) => {
      this.#record = undefined;
      log(notKept(error));
    });
    if (!this.#connected) return;
    this.#connection.keepBeforeReading((received) => this.#store(record, received));
    this.#rearm();
  }

  /** An incomplete message remains in the socket, so only new data must be reported. Data that are there now are reported once. */
  #rearm(): void {
    this.#poller.modify(this.#connection.fd, EPOLLIN | EPOLLET);
  }

  /** Stores what a message brings before it is read. */
  #store(record: PortRecord, { message, fd }: ReceivedMessage): void {
    if (message.type === 'peer-gone') record.removePeer(message.id);
    // Anything else is an error, found when the message is applied.
    else if (message.type === 'event-fd' && !this.#isRepeated(message) && isEventFd(fd!))
      record.addEventFd(message.id, fd!);
  }

  #isRepeated({ id, vector }: { readonly id: number; readonly vector: number }): boolean {
    const known = this.#incomplete.get(id) ?? this.doorbells(id);
    return this.#mayRepeat && vector === known.length - 1;
  }

  /** Handles messages of the server; if there are many, some are left, and the connection is reported as readable again. */
  read(): void {
    for (let messages = 0; messages < MESSAGES_AT_ONCE; messages++) {
      if (!this.#connected) return;
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
    if (this.#connected && this.#record !== undefined) this.#rearm();
  }

  /** Takes ownership of a message's descriptor, and applies the message. Returns the event to report, if any. */
  #take(received: ReceivedMessage): PortEvent | 'ready' | null {
    const { message } = received;
    if (message.type === 'init') throw new ServerProtocolError('server sent INIT twice');
    const isRepeated = message.type === 'event-fd' && this.#isRepeated(message);
    this.#mayRepeat = false;
    if (isRepeated) {
      closeFd(received.fd as number);
      return null;
    }
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
      const readiness = this.#readiness;
      this.#readiness = undefined;
      readiness?.ready();
      return;
    }
    this.report(news);
    // Source: seed, the device treats it as an interrupt on vector 0.
    if (news.type === 'peer-gone') this.interrupt(0);
  }

  /** The connection has ended: by the server, or by this side for what the server did wrong. */
  #lose(error: Error | null): void {
    this.#disconnect();
    const usable = error === null ? !this.#isEvicted() : !this.isServerAlive;
    const reason =
      error?.message ??
      (usable
        ? 'the host server is gone'
        : 'the host server has disconnected this peer, which did not read its messages in time (see its --evict-after)');
    if (usable) {
      this.#record?.removeServer();
    } else {
      this.resign();
      this.#endRecord();
    }
    if (this.#readiness !== undefined) this.#readiness.lost(new Error(reason));
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
      if (!this.isServerAlive) return false;
      Atomics.wait(never, 0, 0, LOOK_INTERVAL);
    }
    return true;
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

  #endRecord(): void {
    this.#record?.remove();
    this.#record = undefined;
  }

  /**
   * Leaves the port to the next process if it is kept: {@link close} then releases what this process has of it, and the server
   * and the peers do not notice. Without effect otherwise.
   */
  detach(): void {
    if (this.#record === undefined) return;
    this.#record.close();
    this.#record = undefined;
    this.leaveState();
  }

  override close(): void {
    this.#endRecord();
    super.close();
    this.#disconnect();
    for (const peer of [...this.#incomplete.keys()]) this.#dropIncomplete(peer);
  }
}

function notKept({ message }: Error): string {
  return `a restart will not continue here, since the descriptor store failed: ${message}`;
}
