import { EPOLLIN, EPOLLOUT, type Poller } from '@ivshmem/linux/wait';
import { encodePeerGone } from '@ivshmem/transport/protocol';
import { type Client, SENT_DATA } from './client.ts';
import type { SharedFd } from './shared-fd.ts';

/** Retry interval for clients whose sockets give no event when they become writable again, in ms. */
const RETRY = 100;

export interface ClientTableHandlers {
  /** A client has been disconnected and its ID is free. Called before the other clients are notified. */
  disconnected(client: Client): void;
  /** PEER_GONE has been queued for the other clients. */
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
  add(client: Client, init: Uint8Array, memory: SharedFd): void {
    this.#poller.add(client.socket.fd, client.interest, (events) => this.#handle(client, events));
    const others = [...this.#byId.values()];
    this.#byId.set(client.id, client);
    client.push(init, memory);
    this.#flush(client);
    for (const other of others) this.#announce(client, other);
    for (const other of others) this.#announce(other, client);
    this.#announce(client, client);
  }

  /** Sends all eventfds of `peer` to `to`. */
  #announce(peer: Client, to: Client): void {
    for (const { bytes, event } of peer.announcement) to.push(bytes, event);
    if (!to.isBlocked) this.#flush(to);
  }

  #handle(client: Client, events: number): void {
    if ((events & ~EPOLLOUT) === 0) {
      this.#flush(client);
    } else {
      if ((events & ~EPOLLOUT) !== EPOLLIN) client.fail('disconnected', 'disconnected');
      else client.fail('sent-data', SENT_DATA);
      this.#failed.add(client);
    }
    this.disconnectFailed();
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
    client.close();
    this.#handlers.disconnected(client);
    const gone = encodePeerGone(client.id);
    for (const other of this.#byId.values()) {
      other.push(gone, null);
      if (!other.isBlocked) this.#flush(other);
    }
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
