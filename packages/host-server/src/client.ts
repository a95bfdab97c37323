import {
  createEventFd,
  EPOLLIN,
  EPOLLOUT,
  EPOLLRDHUP,
  type PeerCredentials,
  SystemCallError,
  type UnixSocket,
} from '@ivshmem/linux';
import { encodeEventFd } from '@ivshmem/transport';
import { Outbox } from './outbox.ts';
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
  failure: string | null = null;
  /** Nothing tells when it can be sent to again: try later. */
  congested = false;
  readonly #outbox: Outbox;
  #full = false;

  /** Takes over the socket. Throws SystemCallError where no eventfds can be had; the socket stays the caller's then. */
  constructor(
    id: number,
    socket: UnixSocket,
    credentials: PeerCredentials,
    limits: { vectors: number; capacity: number },
  ) {
    const vectors: SharedFd[] = [];
    try {
      while (vectors.length < limits.vectors) vectors.push(new SharedFd(createEventFd()));
    } catch (error) {
      for (const vector of vectors) vector.release();
      throw error;
    }
    this.id = id;
    this.socket = socket;
    this.credentials = credentials;
    this.introduction = vectors.map((event, vector) => ({ bytes: encodeEventFd(id, vector), event }));
    this.#outbox = new Outbox(socket, limits.capacity);
  }

  /** What to watch its socket for. A client has nothing to say: whatever can be read means that it is gone. */
  get interest(): number {
    return EPOLLIN | EPOLLRDHUP | (this.#full ? EPOLLOUT : 0);
  }

  /** Queues a message; {@link flush} sends it. */
  push(bytes: Uint8Array, attachment: SharedFd | null): void {
    if (this.#outbox.push(bytes, attachment)) return;
    this.failure ??= `does not read: ${this.#outbox.length} messages wait for it`;
  }

  /** Sends what its socket takes. Returns whether {@link interest} has changed. */
  flush(): boolean {
    if (this.failure !== null) return false;
    const before = this.#full;
    try {
      const result = this.#outbox.flush();
      this.#full = result === 'full';
      this.congested = result === 'congested';
    } catch (error) {
      this.failure = error instanceof SystemCallError ? `unreachable: ${error.code}` : String(error);
    }
    return this.#full !== before;
  }

  /** Closes the connection, and the eventfds as soon as no message with them waits for anyone. */
  close(): void {
    this.#outbox.close();
    this.socket.close();
    for (const { event } of this.introduction) event.release();
  }
}
