import { SystemCallError } from '@ivshmem/linux';
import type { PeerCredentials, UnixSocket } from '@ivshmem/linux/socket';
import { createEventFd, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from '@ivshmem/linux/wait';
import { encodeEventFd } from '@ivshmem/transport/protocol';
import type { DescriptorBudget } from './descriptor-budget.ts';
import type { DepartureCause } from './events.ts';
import { type FlushResult, Outbox } from './outbox.ts';
import { SharedFd } from './shared-fd.ts';

/** A connection with its ID, its eventfds, and the messages that wait for it. */
export class Client {
  readonly id: number;
  readonly socket: UnixSocket;
  readonly credentials: PeerCredentials;
  readonly since = new Date();
  /** The messages, with their eventfds, that tell a peer of this one: one per vector. */
  readonly introduction: readonly { readonly bytes: Uint8Array; readonly event: SharedFd }[];
  /** Why it is to be disconnected, as soon as nothing iterates over the clients any more. */
  failure: { readonly cause: DepartureCause; readonly reason: string } | null = null;
  /** Nothing tells for sure when it can be sent to again: try later, too. */
  retry = false;
  /** Since when, on the clock of performance.now(), its socket has taken none of what waits; null where nothing waits. */
  stalledSince: number | null = null;
  readonly #outbox: Outbox;
  readonly #budget: DescriptorBudget;
  #flushed: FlushResult = 'sent';

  /**
   * Takes over the socket, and 1 + `vectors` descriptors that the caller has taken from the budget. Throws
   * SystemCallError where no eventfds can be had; both stay the caller's then.
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
    for (const fd of fds) vectors.push(new SharedFd(fd, () => budget.give(1)));
    this.id = id;
    this.socket = socket;
    this.credentials = credentials;
    this.introduction = vectors.map((event, vector) => ({ bytes: encodeEventFd(id, vector), event }));
    this.#outbox = new Outbox(socket, limits.capacity, { oneByOne: true });
    this.#budget = budget;
  }

  /** What to watch its socket for. A client has nothing to say: whatever can be read means that it is gone. */
  get interest(): number {
    const base = EPOLLIN | EPOLLRDHUP;
    if (this.#flushed === 'full') return base | EPOLLOUT;
    // The socket has room all the time; edge-triggered, it reports each message that has been read.
    if (this.#flushed === 'unread') return base | EPOLLOUT | EPOLLET;
    return base;
  }

  /** Whether it is of no use to {@link flush} before its socket or time tells otherwise. */
  get isBlocked(): boolean {
    return this.failure === null && this.#flushed !== 'sent';
  }

  /** What waits for it. */
  get waiting(): { messages: number; bytes: number } {
    return { messages: this.#outbox.length, bytes: this.#outbox.bytes };
  }

  /** Queues a message; {@link flush} sends it. */
  push(bytes: Uint8Array, attachment: SharedFd | null): void {
    if (this.#outbox.push(bytes, attachment)) return;
    this.fail('not-reading', `does not read: ${this.#outbox.length} messages wait for it`);
  }

  /** Sends what its socket takes. Returns whether {@link interest} has changed. */
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
   * Whether it has read nothing for `limit` ms, although something waits for it. What the kernel does not take on
   * account of others is not held against it.
   */
  isStalled(now: number, limit: number): boolean {
    if (this.stalledSince === null || now - this.stalledSince < limit) return false;
    if (this.#flushed !== 'congested' || this.socket.unreadBytes() > 0) return true;
    this.stalledSince = now;
    return false;
  }

  /** Marks it as one to be disconnected; the first reason counts. */
  fail(cause: DepartureCause, reason: string): void {
    this.failure ??= { cause, reason };
  }

  /** Closes the connection, and the eventfds as soon as no message with them waits for anyone. */
  close(): void {
    this.#outbox.close();
    this.socket.close();
    this.#budget.give(1);
    for (const { event } of this.introduction) event.release();
  }
}
