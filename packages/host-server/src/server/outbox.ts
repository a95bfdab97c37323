import { SystemCallError } from '@ivshmem/linux';
import type { UnixSocket } from '@ivshmem/linux/socket';
import type { SharedFd } from './shared-fd.ts';

const ETOOMANYREFS = 109;

interface Entry {
  bytes: Uint8Array;
  attachment: SharedFd | null;
  /** A part of it has been sent. */
  begun: boolean;
}

/**
 * How {@link Outbox.flush} ended: `sent`, with nothing left; `full`, until the client reads; `unread`, until it has read
 * everything; `congested`, where so many descriptors of this user are under way that the kernel takes no more, until
 * clients read.
 */
export type FlushResult = 'sent' | 'full' | 'unread' | 'congested';

/** At the moment when the kernel reports that all is read, it still counts one byte. */
const ALL_READ = 1;

/** Messages on their way to a client that may be slow. It owns the descriptors in it, not the socket. */
export class Outbox {
  readonly #socket: UnixSocket;
  readonly #capacity: number;
  #entries: Entry[] = [];
  #bytes = 0;
  readonly #oneByOne: boolean;
  /** What was sent last had no descriptor. */
  #unbounded = false;

  /**
   * `capacity`: how many messages may wait. `oneByOne`: for clients like the original one, which handles one message
   * for each read(2), and takes a descriptor that has come for that message's own. A read ends behind a message with a
   * descriptor, but not behind one without: nothing is sent after such a message until it has been read.
   */
  constructor(socket: UnixSocket, capacity: number, options: { oneByOne?: boolean } = {}) {
    this.#socket = socket;
    this.#capacity = capacity;
    this.#oneByOne = options.oneByOne ?? false;
  }

  /** How many messages wait. */
  get length(): number {
    return this.#entries.length;
  }

  /** How many bytes wait. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Adds a message, with one descriptor or none. Returns false where it is full, and adds nothing. */
  push(bytes: Uint8Array, attachment: SharedFd | null): boolean {
    if (this.#entries.length >= this.#capacity) return false;
    this.#bytes += bytes.length;
    this.#entries.push({ bytes, attachment: attachment?.share() ?? null, begun: false });
    return true;
  }

  /** Sends as much as the socket takes, never blocking. Throws SystemCallError where the client is gone. */
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

  /** Drops what waits. */
  close(): void {
    for (const entry of this.#entries) entry.attachment?.release();
    this.#entries = [];
    this.#bytes = 0;
  }
}
