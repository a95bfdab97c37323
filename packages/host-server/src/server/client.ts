import { closeFd, SystemCallError } from '@ivshmem/linux';
import type { PeerCredentials, UnixSocket } from '@ivshmem/linux/socket';
import { EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from '@ivshmem/linux/wait';
import { encodeEventFd, encodePeerGone } from '@ivshmem/transport/protocol';
import type { DescriptorBudget } from './descriptor-budget.ts';
import type { DepartureCause } from './events.ts';
import type { LinkState, Message, Tenant } from './link-state.ts';

/** Why a client that sends anything is disconnected. */
export const SENT_DATA = 'sent data, which the protocol does not allow';
/** From Linux' asm-generic/errno.h; `node:os` does not have it. */
const ETOOMANYREFS = 109;
/** The kernel still counts one byte when it reports that everything has been read. */
const ALL_READ = 1;

/**
 * Result of sending. `sent`: nothing is left. `full`: the socket buffer is full until the client reads. `unread`: the client
 * must first read everything sent so far. `congested`: this user has so many descriptors in flight that the kernel accepts no
 * more until clients read (ETOOMANYREFS, unix(7)).
 */
type Progress = 'sent' | 'full' | 'unread' | 'congested';

/** What {@link Client} is made of. */
export interface ClientParts extends Tenant {
  readonly id: number;
  readonly socket: UnixSocket;
  /** Its eventfds, one per vector. */
  readonly events: readonly number[];
  /** Its first message. */
  readonly init: Message;
}

/**
 * A connected client: its socket, its ID, and what it has yet to be notified of. That is not a queue of messages but the
 * difference between the clients that there are and those that it has seen: a peer that has come and gone while the client
 * did not read is never announced to it, and a client that does not read costs nothing.
 */
export class Client {
  readonly id: number;
  readonly serial: number;
  readonly socket: UnixSocket;
  readonly credentials: PeerCredentials;
  readonly since: Date;
  readonly events: readonly number[];
  /** The EVENT_FD messages that announce this client to a peer: one per vector. */
  readonly announcement: readonly Uint8Array[];
  /** Why the client is to be disconnected; null if it has not failed. See `ClientTable.disconnectFailed`. */
  failure: { readonly cause: DepartureCause; readonly reason: string } | null = null;
  /** The socket may give no event when it becomes writable again: flush on a timer as well. */
  retry = false;
  /** When the socket last accepted a pending byte, on the clock of performance.now(); null if nothing is pending. */
  stalledSince: number | null = null;
  readonly #init: Message;
  readonly #state: LinkState;
  /** All connected clients by their IDs. */
  readonly #peers: ReadonlyMap<number, Client>;
  readonly #budget: DescriptorBudget;
  /** IDs about which there may be something to send, in that order. */
  readonly #pending = new Set<number>();
  #progress: Progress = 'sent';
  /**
   * The last message had no descriptor, or is that of an earlier process. Clients such as the original one handle one message
   * per read(2) and assign any received descriptor to it. A read(2) ends after a message with a descriptor, but not after one
   * without: nothing is sent after such a message until the client has read it.
   */
  #unbounded: boolean;

  /**
   * Takes ownership of socket and eventfds, and of the descriptors that the caller has taken from the budget for them. The client
   * has its ID in `state` already. `peers`: see {@link notify}.
   */
  constructor(
    parts: ClientParts,
    state: LinkState,
    peers: ReadonlyMap<number, Client>,
    budget: DescriptorBudget,
  ) {
    this.id = parts.id;
    this.serial = parts.serial;
    this.socket = parts.socket;
    this.credentials = parts.credentials;
    this.since = parts.since;
    this.events = parts.events;
    this.announcement = parts.events.map((_, vector) => encodeEventFd(parts.id, vector));
    this.#init = parts.init;
    this.#state = state;
    this.#peers = peers;
    this.#budget = budget;
    this.#unbounded = state.isWelcomed(parts.id);
  }

  /** Events to poll the socket for. Clients send nothing, so readable means disconnected, or a violation. */
  get interest(): number {
    const base = EPOLLIN | EPOLLRDHUP;
    if (this.#progress === 'full') return base | EPOLLOUT;
    // The socket is writable all the time; edge-triggered, it reports each message that the client has read.
    if (this.#progress === 'unread') return base | EPOLLOUT | EPOLLET;
    return base;
  }

  /** True while flushing is pointless: wait for writability or for the retry timer. */
  get isBlocked(): boolean {
    return this.failure === null && this.#progress !== 'sent';
  }

  /** Number and bytes of pending messages. */
  get waiting(): { messages: number; bytes: number } {
    const isWelcomed = this.#state.isWelcomed(this.id);
    const sum = isWelcomed ? { messages: 0, bytes: 0 } : { messages: 1, bytes: this.#init.bytes.length };
    for (const id of this.#pending) {
      const { isGone, vectors } = this.#seen(id);
      const announced = this.#peers.get(id)?.announcement.slice(vectors) ?? [];
      for (const bytes of isGone ? [encodePeerGone(id), ...announced] : announced) {
        sum.messages++;
        sum.bytes += bytes.length;
      }
    }
    return sum;
  }

  /** Notes that the peer with this ID has come or gone, which {@link flush} sends: for all peers in their order. */
  notify(id: number): void {
    this.#pending.add(id);
  }

  /** Sends as much as the socket accepts. Returns whether {@link interest} has changed. */
  flush(): boolean {
    if (this.failure !== null) return false;
    const interest = this.interest;
    let hasProgressed = false;
    this.#progress = 'sent';
    try {
      for (let message = this.#next(); message !== null; message = this.#next()) {
        if (this.#unbounded && this.socket.unreadBytes() > ALL_READ) this.#progress = 'unread';
        else if (!this.#state.send(this.socket.fd, this.id, message)) this.#progress = 'full';
        if (this.#progress !== 'sent') break;
        this.#unbounded = message.fd === null;
        hasProgressed = true;
      }
    } catch (error) {
      if (!(error instanceof SystemCallError)) this.fail('disconnected', String(error));
      else if (error.errno === ETOOMANYREFS) this.#progress = 'congested';
      else this.fail('disconnected', `unreachable: ${error.code}`);
    }
    this.retry = this.#progress === 'unread' || this.#progress === 'congested';
    if (this.#progress === 'sent') this.stalledSince = null;
    else if (this.stalledSince === null || hasProgressed) this.stalledSince = performance.now();
    return this.interest !== interest;
  }

  /** The next message; null if there is none. */
  #next(): Message | null {
    if (!this.#state.isWelcomed(this.id)) return this.#init;
    for (const id of this.#pending) {
      const { isGone, vectors } = this.#seen(id);
      if (isGone) return { bytes: encodePeerGone(id), fd: null, about: { peer: id, serial: 0, vectors: 0 } };
      const peer = this.#peers.get(id);
      const bytes = peer?.announcement[vectors];
      if (bytes !== undefined) {
        const about = { peer: id, serial: peer!.serial, vectors: vectors + 1 };
        return { bytes, fd: peer!.events[vectors]!, about };
      }
      this.#pending.delete(id);
    }
    return null;
  }

  /** Whether the client has yet to learn that a peer with this ID is gone, and how many vectors it has of the present one. */
  #seen(id: number): { isGone: boolean; vectors: number } {
    const serial = this.#state.seenSerial(this.id, id);
    const vectors = this.#state.seenVectors(this.id, id);
    if (serial === this.#peers.get(id)?.serial) return { isGone: false, vectors };
    return { isGone: serial !== 0 && vectors > 0, vectors: 0 };
  }

  /**
   * Whether the client has left pending messages unread for `limit` ms. A client that has read everything is not stalled
   * if the kernel accepts no more because other clients do not read.
   */
  isStalled(now: number, limit: number): boolean {
    if (this.stalledSince === null || now - this.stalledSince < limit) return false;
    if (this.#progress !== 'congested' || this.socket.unreadBytes() > 0) return true;
    this.stalledSince = now;
    return false;
  }

  /** Marks the client for disconnection. Only the first reason is kept. */
  fail(cause: DepartureCause, reason: string): void {
    this.failure ??= { cause, reason };
  }

  /** Closes the connection and the eventfds. */
  close(): void {
    this.socket.close();
    for (const event of this.events) closeFd(event);
    this.#budget.release(1 + this.events.length);
  }
}
