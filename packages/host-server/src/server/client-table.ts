import { EPOLLIN, EPOLLOUT, type Poller } from '@ivshmem/linux/wait';
import { type Client, SENT_DATA } from './client.ts';

/** Retry interval for clients whose sockets give no event when they become writable again, in ms. */
const RETRY = 100;

export interface ClientTableHandlers {
  /** A client is disconnected. Frees its ID, before its socket is closed and the other clients are notified. */
  disconnected(client: Client): void;
  /** PEER_GONE has been sent to the other clients, or is pending for them. */
  announced(client: Client): void;
}

/** The connected clients: announces them to each other, sends their messages, evicts those that do not read. */
export class ClientTable {
  readonly #poller: Poller;
  readonly #maxPeers: number;
  /** In ms. */
  readonly #evictAfter: number;
  readonly #handlers: ClientTableHandlers;
  readonly #byId = new Map<number, Client>();
  /** To be disconnected by {@link disconnectFailed}. */
  readonly #failed = new Set<Client>();
  #retryTimer: NodeJS.Timeout | undefined;
  #stallTimer: NodeJS.Timeout | undefined;

  /** `evictAfter`: how long a client may leave its messages unread before it is evicted, in seconds. */
  constructor(
    poller: Poller,
    limits: { maxPeers: number; evictAfter: number },
    handlers: ClientTableHandlers,
  ) {
    this.#poller = poller;
    this.#maxPeers = limits.maxPeers;
    this.#evictAfter = limits.evictAfter * 1000;
    this.#handlers = handlers;
  }

  /** All clients by their IDs. */
  get byId(): ReadonlyMap<number, Client> {
    return this.#byId;
  }

  /** All clients in the order of their IDs. */
  get clients(): Client[] {
    return [...this.#byId.values()].sort((a, b) => a.id - b.id);
  }

  get size(): number {
    return this.#byId.size;
  }

  /** Number and bytes of pending messages, over all clients. */
  get waiting(): { messages: number; bytes: number } {
    const sum = { messages: 0, bytes: 0 };
    for (const { waiting } of this.#byId.values()) {
      sum.messages += waiting.messages;
      sum.bytes += waiting.bytes;
    }
    return sum;
  }

  /** The lowest free ID, or null if all are taken. */
  lowestFreeId(): number | null {
    for (let id = 0; id < this.#maxPeers; id++) if (!this.#byId.has(id)) return id;
    return null;
  }

  /**
   * Adds a client whose ID is free. The order of messages is part of the protocol: INIT with the memory to the new
   * client, its eventfds to all others, their eventfds to it, and its own eventfds last. Throws SystemCallError if the
   * socket cannot be polled; the caller then still owns the client.
   */
  add(client: Client): void {
    this.#poll(client);
    const others = [...this.#byId.values()];
    this.#byId.set(client.id, client);
    this.#flush(client);
    for (const other of others) this.#notify(other, client.id);
    for (const other of others) client.notify(other.id);
    this.#notify(client, client.id);
  }

  /** Adds a client of an earlier process: sends nothing before {@link catchUp}. Throws as {@link add} does. */
  restore(client: Client): void {
    this.#poll(client);
    this.#byId.set(client.id, client);
  }

  /**
   * Disconnects the restored clients that have left, whose IDs are free for those that wait then, and notifies all others of
   * what they have not seen yet.
   */
  catchUp(): void {
    for (const client of this.#byId.values()) {
      const received = client.socket.peek();
      if (received !== 'nothing') this.#failReadable(client, received === 'end');
    }
    this.disconnectFailed();
    for (const client of this.#byId.values()) {
      for (let id = 0; id < this.#maxPeers; id++) if (id !== client.id) client.notify(id);
      this.#notify(client, client.id);
    }
    this.disconnectFailed();
  }

  #poll(client: Client): void {
    this.#poller.add(client.socket.fd, client.interest, (events) => this.#handle(client, events));
  }

  /** Notifies a client that the peer with this ID has come or gone. */
  #notify(client: Client, id: number): void {
    client.notify(id);
    if (!client.isBlocked) this.#flush(client);
  }

  #handle(client: Client, events: number): void {
    if ((events & ~EPOLLOUT) === 0) {
      this.#flush(client);
    } else {
      this.#failReadable(client, (events & ~EPOLLOUT) !== EPOLLIN);
    }
    this.disconnectFailed();
  }

  #failReadable(client: Client, isEnd: boolean): void {
    if (isEnd) client.fail('disconnected', 'disconnected');
    else client.fail('sent-data', SENT_DATA);
    this.#failed.add(client);
  }

  #flush(client: Client): void {
    if (client.flush()) this.#poller.modify(client.socket.fd, client.interest);
    if (client.failure !== null) {
      this.#failed.add(client);
      return;
    }
    if (client.retry) this.#retryTimer ??= setTimeout(() => this.#retry(), RETRY);
    if (client.stalledSince !== null) {
      this.#stallTimer ??= setTimeout(() => this.#evictStalled(), this.#evictAfter);
    }
  }

  #retry(): void {
    this.#retryTimer = undefined;
    for (const client of this.#byId.values()) if (client.retry) this.#flush(client);
    this.disconnectFailed();
  }

  #evictStalled(): void {
    this.#stallTimer = undefined;
    const now = performance.now();
    let oldest = Number.POSITIVE_INFINITY;
    for (const client of this.#byId.values()) {
      if (client.isStalled(now, this.#evictAfter)) {
        const seconds = this.#evictAfter / 1000;
        const { messages } = client.waiting;
        client.fail('not-reading', `not reading: ${messages} messages pending for ${seconds} s`);
        this.#failed.add(client);
      } else if (client.stalledSince !== null) {
        oldest = Math.min(oldest, client.stalledSince);
      }
    }
    if (oldest < Number.POSITIVE_INFINITY) {
      this.#stallTimer = setTimeout(() => this.#evictStalled(), Math.ceil(oldest + this.#evictAfter - now));
    }
    this.disconnectFailed();
  }

  /** Disconnects all failed clients, including those that fail while this runs. */
  disconnectFailed(): void {
    for (const client of this.#failed) {
      this.#failed.delete(client);
      if (this.#byId.get(client.id) === client) this.#disconnect(client);
    }
  }

  #disconnect(client: Client): void {
    this.#poller.remove(client.socket.fd);
    this.#byId.delete(client.id);
    this.#handlers.disconnected(client);
    client.close();
    for (const other of this.#byId.values()) this.#notify(other, client.id);
    this.#handlers.announced(client);
  }

  /** Disconnects all clients without sending anything. */
  close(): void {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#stallTimer);
    for (const client of this.#byId.values()) {
      this.#poller.remove(client.socket.fd);
      client.close();
    }
    this.#byId.clear();
    this.#failed.clear();
  }
}
