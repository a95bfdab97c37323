import { SystemCallError } from '@ivshmem/linux';
import type { UnixSocket } from '@ivshmem/linux/socket';
import type { SharedFd } from './shared-fd.ts';

/** From Linux' asm-generic/errno.h; `node:os` does not have it. */
const ETOOMANYREFS = 109;

interface Entry {
  bytes: Uint8Array;
  attachment: SharedFd | null;
  /** Partly sent. */
  begun: boolean;
}

/**
 * Result of {@link Outbox.flush}. `sent`: nothing is left. `full`: the socket buffer is full until the client reads.
 * `unread`: the client must first read everything sent so far. `congested`: this user has so many descriptors in flight
 * that the kernel accepts no more until clients read (ETOOMANYREFS, unix(7)).
 */
export type FlushResult = 'sent' | 'full' | 'unread' | 'congested';

/** The kernel still counts one byte when it reports that everything has been read. */
const ALL_READ = 1;

/** The queue of messages to one client. It owns the queued descriptors, not the socket. */
export class Outbox {
  readonly #socket: UnixSocket;
  readonly #capacity: number;
  #entries: Entry[] = [];
  #bytes = 0;
  readonly #oneByOne: boolean;
  /** The message sent last had no descriptor. */
  #unbounded = false;

  /**
   * `capacity`: maximum number of queued messages. `oneByOne`: for clients such as the original one, which handle one
   * message per read(2) and assign any received descriptor to it. A read(2) ends after a message with a descriptor, but
   * not after one without: nothing is sent after such a message until the client has read it.
   */
  constructor(socket: UnixSocket, capacity: number, options: { oneByOne?: boolean } = {}) {
    this.#socket = socket;
    this.#capacity = capacity;
    this.#oneByOne = options.oneByOne ?? false;
  }

  /** Number of queued messages. */
  get length(): number {
    return this.#entries.length;
  }

  /** Bytes not yet sent. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Queues a message with at most one descriptor. Returns false, and queues nothing, if the outbox is full. */
  push(bytes: Uint8Array, attachment: SharedFd | null): boolean {
    if (this.#entries.length >= this.#capacity) return false;
    this.#bytes += bytes.length;
    this.#entries.push({ bytes, attachment: attachment?.share() ?? null, begun: false });
    return true;
  }

  /** Sends as much as the socket accepts, without blocking. Throws SystemCallError if the client has disconnected. */
  flush(): FlushResult {
    let done = 0;
    try {
      while (done < this.#entries.length) {
        const entry = this.#entries[done]!;
        const mustWait = this.#oneByOne && this.#unbounded && !entry.begun;
        if (mustWait && this.#socket.unreadBytes() > ALL_READ) return 'unread';
        const taken = this.#socket.send(entry.bytes, entry.attachment === null ? [] : [entry.attachment.fd]);
        if (taken === 0) return 'full';
        this.#unbounded = entry.attachment === null;
        entry.attachment?.release();
        entry.attachment = null;
        entry.begun = true;
        this.#bytes -= taken;
        if (taken === entry.bytes.length) done++;
        else entry.bytes = entry.bytes.subarray(taken);
      }
      return 'sent';
    } catch (error) {
      if (error instanceof SystemCallError && error.errno === ETOOMANYREFS) return 'congested';
      throw error;
    } finally {
      this.#entries.splice(0, done);
    }
  }

  /** Drops the queued messages and releases their descriptors. */
  close(): void {
    for (const entry of this.#entries) entry.attachment?.release();
    this.#entries = [];
    this.#bytes = 0;
  }
}
