import { closeFd, SystemCallError } from '@ivshmem/linux';
import type { PeerCredentials, UnixSocket } from '@ivshmem/linux/socket';
import { type Journal, Phase } from './journal.ts';
import type { KeptEventFds } from './kept-eventfds.ts';
import {
  commandName,
  decodeHeader,
  HEADER_SIZE,
  MAX_MESSAGE_FDS,
  type RequestHeader,
  VfioUserError,
} from './messages.ts';

/** A request. The payload is valid until it is answered; the descriptors belong to the caller of {@link VfioUserConnection.read}. */
export interface Request {
  readonly header: RequestHeader;
  readonly payload: Uint8Array;
  readonly fds: number[];
}

/** A reply, and the descriptors that go with it. */
export interface Reply {
  readonly bytes: Uint8Array;
  readonly fds: readonly number[];
}

/**
 * The server's side of a vfio-user socket. While a reply is pending, no request is read, so there is at most one in work: the
 * journal has it, and another process with the same journal continues where this one has ended.
 *
 * Descriptors come with the header of a message. It looks ahead as far as that, and stores the descriptors that it sees. Then
 * it receives, which shows whether they came with the header: the kernel also shows those of the message behind it.
 */
export class VfioUserConnection {
  readonly credentials: PeerCredentials;
  readonly #socket: UnixSocket;
  readonly #journal: Journal;
  readonly #kept: KeptEventFds | undefined;
  /** Descriptors that were looked ahead at. */
  readonly #ahead: number[] = [];
  #request: RequestHeader | undefined;
  /** Those of the request in work. */
  #fds: number[];
  /** Those of the reply. */
  #replyFds: readonly number[] = [];
  #open = true;

  /**
   * Takes over a connected socket, and the descriptors of the request in work that are in a journal of an earlier process.
   * Throws SystemCallError; the socket stays the caller's then.
   */
  constructor(socket: UnixSocket, journal: Journal, kept?: KeptEventFds, fds: number[] = []) {
    this.credentials = socket.peerCredentials();
    this.#socket = socket;
    this.#journal = journal;
    this.#kept = kept;
    this.#fds = fds;
  }

  /** Poll it for input to {@link read}, and for output to {@link flush}. */
  get fd(): number {
    return this.#socket.fd;
  }

  /** Only a part of a request has been received. */
  get isPartial(): boolean {
    return this.#journal.phase === Phase.READING && this.#journal.done > 0;
  }

  /** A reply is pending: the socket has no room for it. */
  get isBlocked(): boolean {
    return this.#journal.phase === Phase.REPLYING;
  }

  /**
   * The next request, to be answered by {@link answer}; `'wait'` if it is incomplete, or a reply is pending; `'end'` if the
   * client has closed the connection. Throws {@link VfioUserError} and SystemCallError: close it then.
   */
  read(): Request | 'wait' | 'end' {
    const journal = this.#journal;
    if (journal.phase === Phase.REPLYING) return 'wait';
    if (journal.phase === Phase.READING) {
      const got = this.#receive();
      if (got !== 'full') return got;
      journal.execute();
    }
    const header = this.#request ?? decodeHeader(journal.request);
    return { header, payload: journal.request.subarray(HEADER_SIZE, header.size), fds: this.#fds };
  }

  #receive(): 'full' | 'wait' | 'end' {
    const journal = this.#journal;
    for (;;) {
      const { done } = journal;
      if (done >= HEADER_SIZE) this.#request ??= decodeHeader(journal.request);
      if (done === this.#request?.size) return 'full';
      let length = (this.#request?.size ?? HEADER_SIZE) - done;
      if (done < HEADER_SIZE) {
        length = this.#lookAhead(done);
        if (length === -1) return 'wait';
        if (length === 0) return this.#endOfStream(done);
        if (done + length === HEADER_SIZE) {
          this.#request = decodeHeader(journal.request);
          // With descriptors, the header alone: they may belong to what is behind it.
          if (this.#ahead.length === 0) length = this.#request.size - done;
        }
        if (this.#ahead.length > 0) this.#store();
      }
      const arriving = this.#ahead.length;
      const received = this.#receivePart(length, arriving);
      if (received === -1) return 'wait';
      if (received === 0) return this.#endOfStream(done);
      if (arriving > 0 || journal.hasReceivedDescriptors) this.#takeAhead(journal.hasReceivedDescriptors);
    }
  }

  /** Copies what is pending of the header to its place, without receiving it. As UnixSocket.receive. */
  #lookAhead(done: number): number {
    try {
      return this.#socket.lookAhead(this.#journal.request.subarray(done, HEADER_SIZE), this.#ahead);
    } catch (error) {
      return endOf(error);
    }
  }

  #receivePart(length: number, arriving: number): number {
    try {
      return this.#journal.receive(this.#socket.fd, length, arriving);
    } catch (error) {
      return endOf(error);
    }
  }

  /** Stores the descriptors ahead, unless they are too many for the request. */
  #store(): void {
    const first = this.#fds.length;
    if (this.#kept === undefined || first + this.#ahead.length > MAX_MESSAGE_FDS) return;
    for (const [i, fd] of this.#ahead.entries()) this.#ahead[i] = this.#kept.arrive(first + i, fd);
  }

  /** The descriptors ahead came with what was received; if not, they belong to what comes behind it. */
  #takeAhead(received: boolean): void {
    const ahead = this.#ahead.splice(0);
    if (!received) {
      for (const fd of ahead) closeFd(fd);
      return;
    }
    this.#fds.push(...ahead);
    const request = this.#request;
    if (ahead.length === 0)
      throw new VfioUserError(`${commandName(request!.command)} with descriptors behind its header`);
    if (this.#fds.length > MAX_MESSAGE_FDS)
      throw new VfioUserError(`more than ${MAX_MESSAGE_FDS} descriptors with a message`);
  }

  #endOfStream(done: number): 'end' {
    if (done === 0) return 'end';
    throw new VfioUserError('closed the connection within a message');
  }

  /**
   * Ends the request in work, with a reply or without. Descriptors of the reply stay the caller's and must live until
   * {@link isBlocked} is false. `negotiated`: the client has sent VERSION. Throws SystemCallError.
   */
  answer(reply: Reply | null, negotiated: boolean): void {
    const journal = this.#journal;
    if (reply === null) journal.finish(negotiated);
    else journal.reply(reply.bytes, reply.fds.length > 0, negotiated);
    this.#request = undefined;
    if (this.#fds.length > 0) this.#fds = [];
    this.#kept?.settle();
    if (reply === null) return;
    this.#replyFds = reply.fds;
    this.flush();
  }

  /** Sends what could not be sent before. Throws SystemCallError. */
  flush(): void {
    const journal = this.#journal;
    if (journal.phase !== Phase.REPLYING) return;
    try {
      journal.send(this.#socket.fd, this.#replyFds);
    } catch (error) {
      if (!(error instanceof SystemCallError) || !['EPIPE', 'ECONNRESET'].includes(error.code)) throw error;
      // The client has closed the connection; the next read returns that.
      journal.finish(journal.negotiated);
    }
  }

  /** Closes the connection, and the descriptors of an incomplete request. */
  close(): void {
    if (!this.#open) return;
    // A service manager may hold the socket, too.
    this.#socket.shutdown();
    this.leave();
  }

  /** Closes the descriptors of this process; a later one continues with the journal. */
  leave(): void {
    if (!this.#open) return;
    this.#open = false;
    for (const fd of [...this.#fds.splice(0), ...this.#ahead.splice(0)]) closeFd(fd);
    this.#socket.close();
  }
}

/** Returns 0, the end of the stream, for a client that has closed the connection with replies unread. Throws other errors. */
function endOf(error: unknown): 0 {
  if (error instanceof SystemCallError && error.code === 'ECONNRESET') return 0;
  throw error;
}
