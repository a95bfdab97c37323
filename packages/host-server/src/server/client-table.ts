import { EPOLLIN, EPOLLOUT, type Poller } from '@ivshmem/linux/wait';
import { encodePeerGone } from '@ivshmem/transport/protocol';
import type { Client } from './client.ts';
import type { SharedFd } from './shared-fd.ts';

/** How long to leave alone what nothing may tell the end of, in ms. */
const RETRY = 100;

export interface ClientTableHandlers {
  /** A client has been disconnected, and its ID is free; the others are told next. */
  vacated(client: Client): void;
  /** The others have been told. */
  gone(client: Client): void;
}

/** The clients that have been let in, what they are told of each other, and when one of them is given up. */
export class ClientTable {
  readonly #poller: Poller;
  readonly #maxPeers: number;
  /** In ms. */
  readonly #evictAfter: number;
  readonly #handlers: ClientTableHandlers;
  readonly #byId = new Map<number, Client>();
  /** Those to be disconnected. */
  readonly #failed = new Set<Client>();
  #retryTimer: NodeJS.Timeout | undefined;
  #stallTimer: NodeJS.Timeout | undefined;

  /** `evictAfter`: how long a client may leave its messages unread, in seconds. */
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

  /** All of them, by ID. */
  get clients(): Client[] {
    return [...this.#byId.values()].sort((a, b) => a.id - b.id);
  }

  /** How many there are. */
  get size(): number {
    return this.#byId.size;
  }

  /** What waits for all of them together. */
  get waiting(): { messages: number; bytes: number } {
    const sum = { messages: 0, bytes: 0 };
    for (const { waiting } of this.#byId.values()) {
      sum.messages += waiting.messages;
      sum.bytes += waiting.bytes;
    }
    return sum;
  }

  /** Null where all IDs are taken. */
  lowestFreeId(): number | null {
    for (let id = 0; id < this.#maxPeers; id++) if (!this.#byId.has(id)) return id;
    return null;
  }

  /**
   * Adds a client, its ID being free. It gets INIT, with the memory; the others get its eventfds; it gets those of the
   * others, and its own last. That order is part of the protocol. Throws SystemCallError where its socket cannot be
   * watched; the client stays the caller's then.
   */
  add(client: Client, init: Uint8Array, memory: SharedFd): void {
    this.#poller.add(client.socket.fd, client.interest, (events) => this.#handle(client, events));
    const others = [...this.#byId.values()];
    this.#byId.set(client.id, client);
    client.push(init, memory);
    this.#flush(client);
    for (const other of others) this.#introduce(client, other);
    for (const other of others) this.#introduce(other, client);
    this.#introduce(client, client);
  }

  /** Tells `to` all eventfds of `peer`. */
  #introduce(peer: Client, to: Client): void {
    for (const { bytes, event } of peer.introduction) to.push(bytes, event);
    if (!to.isBlocked) this.#flush(to);
  }

  #handle(client: Client, events: number): void {
    if ((events & ~EPOLLOUT) === 0) {
      this.#flush(client);
    } else {
      if ((events & ~EPOLLOUT) !== EPOLLIN) client.fail('disconnected', 'disconnected');
      else client.fail('sent-data', 'it sent something, which no client does');
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
        client.fail('not-reading', `does not read: ${messages} messages have waited for it for ${seconds} s`);
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

  /** Disconnects whoever has failed; whose failure shows while another's is dealt with comes next. */
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
    this.#handlers.vacated(client);
    const gone = encodePeerGone(client.id);
    for (const other of this.#byId.values()) {
      other.push(gone, null);
      if (!other.isBlocked) this.#flush(other);
    }
    this.#handlers.gone(client);
  }

  /** Disconnects all of them without another word. */
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
