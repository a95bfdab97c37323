import { SystemCallError } from '@ivshmem/linux';
import type { PeerCredentials, UnixSocket } from '@ivshmem/linux/socket';
import { createEventFd, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from '@ivshmem/linux/wait';
import { encodeEventFd } from '@ivshmem/transport/protocol';
import type { DescriptorBudget } from './descriptor-budget.ts';
import type { DepartureCause } from './events.ts';
import { type FlushResult, Outbox } from './outbox.ts';
import { SharedFd } from './shared-fd.ts';

/** Why a client that sends anything is disconnected. */
export const SENT_DATA = 'sent data, which the protocol does not allow';

/** A connected client: its socket, ID, eventfds and pending messages. */
export class Client {
  readonly id: number;
  readonly socket: UnixSocket;
  readonly credentials: PeerCredentials;
  readonly since = new Date();
  /** The EVENT_FD messages, with their eventfds, that announce this client to a peer: one per vector. */
  readonly announcement: readonly { readonly bytes: Uint8Array; readonly event: SharedFd }[];
  /** Why the client is to be disconnected; null if it has not failed. See `ClientTable.disconnectFailed`. */
  failure: { readonly cause: DepartureCause; readonly reason: string } | null = null;
  /** The socket may give no event when it becomes writable again: flush on a timer as well. */
  retry = false;
  /** When the socket last accepted a pending byte, on the clock of performance.now(); null if nothing is pending. */
  stalledSince: number | null = null;
  readonly #outbox: Outbox;
  readonly #budget: DescriptorBudget;
  #flushed: FlushResult = 'sent';

  /**
   * Takes ownership of the socket, and of 1 + `vectors` descriptors that the caller has taken from the budget. Throws
   * SystemCallError if eventfds cannot be created; the caller then still owns both.
   */
  constructor(
    id: number,
    socket: UnixSocket,
    credentials: PeerCredentials,
    limits: { vectors: number; capacity: number },
    budget: DescriptorBudget,
  ) {
    const fds: number[] = [];
    const vectors: SharedFd[] = [];
    try {
      while (fds.length < limits.vectors) fds.push(createEventFd());
    } catch (error) {
      for (const fd of fds) new SharedFd(fd).release();
      throw error;
    }
    for (const fd of fds) vectors.push(new SharedFd(fd, () => budget.release(1)));
    this.id = id;
    this.socket = socket;
    this.credentials = credentials;
    this.announcement = vectors.map((event, vector) => ({ bytes: encodeEventFd(id, vector), event }));
    this.#outbox = new Outbox(socket, limits.capacity, { oneByOne: true });
    this.#budget = budget;
  }

  /** Events to poll the socket for. Clients send nothing, so readable means disconnected, or a violation. */
  get interest(): number {
    const base = EPOLLIN | EPOLLRDHUP;
    if (this.#flushed === 'full') return base | EPOLLOUT;
    // The socket is writable all the time; edge-triggered, it reports each message that the client has read.
    if (this.#flushed === 'unread') return base | EPOLLOUT | EPOLLET;
    return base;
  }

  /** True while flushing is pointless: wait for writability or for the retry timer. */
  get isBlocked(): boolean {
    return this.failure === null && this.#flushed !== 'sent';
  }

  /** Number and bytes of pending messages. */
  get waiting(): { messages: number; bytes: number } {
    return { messages: this.#outbox.length, bytes: this.#outbox.bytes };
  }

  /** Queues a message for {@link flush}. The client fails if its queue is full. */
  push(bytes: Uint8Array, attachment: SharedFd | null): void {
    if (this.#outbox.push(bytes, attachment)) return;
    this.fail('not-reading', `not reading: ${this.#outbox.length} messages pending`);
  }

  /** Sends as much as the socket accepts. Returns whether {@link interest} has changed. */
  flush(): boolean {
    if (this.failure !== null) return false;
    const interest = this.interest;
    const before = this.#outbox.bytes;
    try {
      this.#flushed = this.#outbox.flush();
      this.retry = this.#flushed === 'unread' || this.#flushed === 'congested';
    } catch (error) {
      const reason = error instanceof SystemCallError ? `unreachable: ${error.code}` : String(error);
      this.fail('disconnected', reason);
    }
    if (this.#outbox.length === 0) this.stalledSince = null;
    else if (this.stalledSince === null || this.#outbox.bytes < before) this.stalledSince = performance.now();
    return this.interest !== interest;
  }

  /**
   * Whether the client has left pending messages unread for `limit` ms. A client that has read everything is not stalled
   * if the kernel accepts no more because other clients do not read.
   */
  isStalled(now: number, limit: number): boolean {
    if (this.stalledSince === null || now - this.stalledSince < limit) return false;
    if (this.#flushed !== 'congested' || this.socket.unreadBytes() > 0) return true;
    this.stalledSince = now;
    return false;
  }

  /** Marks the client for disconnection. Only the first reason is kept. */
  fail(cause: DepartureCause, reason: string): void {
    this.failure ??= { cause, reason };
  }

  /** Closes the connection. Eventfds stay open until no pending message carries them. */
  close(): void {
    this.#outbox.close();
    this.socket.close();
    this.#budget.release(1);
    for (const { event } of this.announcement) event.release();
  }
}
