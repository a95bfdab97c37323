import { closeFd, SystemCallError } from '@ivshmem/linux';
import type { PeerCredentials, UnixSocket } from '@ivshmem/linux/socket';
import {
  commandName,
  decodeHeader,
  HEADER_SIZE,
  MAX_MESSAGE_FDS,
  type RequestHeader,
  VfioUserError,
} from './messages.ts';

/** A buffer for all requests but large writes, in bytes. */
const USUAL_PAYLOAD = 1024;

/** A request. The payload is valid until the next one is read; the descriptors belong to the caller of {@link VfioUserConnection.read}. */
export interface Request {
  readonly header: RequestHeader;
  readonly payload: Uint8Array;
  readonly fds: number[];
}

/**
 * The server's side of a vfio-user socket. It reads a header, then the rest, never more: descriptors arrive with the
 * first byte of the message they belong to. While a reply is pending, no request is read, so there is at most one.
 */
export class VfioUserConnection {
  readonly credentials: PeerCredentials;
  readonly #socket: UnixSocket;
  readonly #header = new Uint8Array(HEADER_SIZE);
  readonly #usual = new Uint8Array(USUAL_PAYLOAD);
  #request: RequestHeader | null = null;
  #payload = this.#usual;
  #filled = 0;
  #fds: number[] = [];
  #unsent: { bytes: Uint8Array; fds: readonly number[] } | null = null;
  #open = true;

  /** Takes over a connected socket. Throws SystemCallError; the socket stays the caller's then. */
  constructor(socket: UnixSocket) {
    this.credentials = socket.peerCredentials();
    this.#socket = socket;
  }

  /** Poll it for input to {@link read}, and for output to {@link flush}. */
  get fd(): number {
    return this.#socket.fd;
  }

  /** Only a part of a request has been received. */
  get isPartial(): boolean {
    return this.#filled > 0 || this.#request !== null;
  }

  /** A reply is pending: the socket has no room for it. */
  get isBlocked(): boolean {
    return this.#unsent !== null;
  }

  /**
   * The next request; `'wait'` if it is incomplete, or a reply is pending; `'end'` if the client has closed the
   * connection. Throws {@link VfioUserError} and SystemCallError: close it then.
   */
  read(): Request | 'wait' | 'end' {
    if (this.isBlocked) return 'wait';
    if (this.#request === null) {
      const got = this.#fill(this.#header, HEADER_SIZE);
      if (got !== 'full') return got;
      this.#request = decodeHeader(this.#header);
      const length = this.#request.size - HEADER_SIZE;
      this.#payload = length <= USUAL_PAYLOAD ? this.#usual : new Uint8Array(length);
      this.#filled = 0;
    }
    const header = this.#request;
    const length = header.size - HEADER_SIZE;
    const fdsOfHeader = this.#fds.length;
    const got = this.#fill(this.#payload, length);
    if (this.#fds.length > fdsOfHeader) {
      throw new VfioUserError(`${commandName(header.command)} with descriptors behind its header`);
    }
    if (got !== 'full') return got;
    const fds = this.#fds;
    this.#request = null;
    this.#filled = 0;
    this.#fds = [];
    return { header, payload: this.#payload.subarray(0, length), fds };
  }

  #fill(into: Uint8Array, length: number): 'full' | 'wait' | 'end' {
    while (this.#filled < length) {
      const received = this.#receive(into.subarray(this.#filled, length));
      if (received === -1) return 'wait';
      if (received === 0) {
        if (!this.isPartial) return 'end';
        throw new VfioUserError('closed the connection within a message');
      }
      this.#filled += received;
      if (this.#fds.length > MAX_MESSAGE_FDS) {
        throw new VfioUserError(`more than ${MAX_MESSAGE_FDS} descriptors with a message`);
      }
    }
    return 'full';
  }

  #receive(into: Uint8Array): number {
    try {
      return this.#socket.receive(into, this.#fds);
    } catch (error) {
      // The client has closed the connection with replies unread.
      if (error instanceof SystemCallError && error.code === 'ECONNRESET') return 0;
      throw error;
    }
  }

  /** Sends a reply, with descriptors that stay the caller's and must live until {@link isBlocked} is false. Throws SystemCallError. */
  send(bytes: Uint8Array, fds: readonly number[] = []): void {
    this.#unsent = { bytes, fds };
    this.flush();
  }

  /** Sends what could not be sent before. Throws SystemCallError. */
  flush(): void {
    while (this.#unsent !== null) {
      const { bytes, fds } = this.#unsent;
      const sent = this.#send(bytes, fds);
      if (sent === 0) return;
      this.#unsent = sent === bytes.length ? null : { bytes: bytes.subarray(sent), fds: [] };
    }
  }

  #send(bytes: Uint8Array, fds: readonly number[]): number {
    try {
      return this.#socket.send(bytes, fds);
    } catch (error) {
      // The client has closed the connection; the next read returns that.
      if (error instanceof SystemCallError && ['EPIPE', 'ECONNRESET'].includes(error.code))
        return bytes.length;
      throw error;
    }
  }

  /** Closes the connection, and the descriptors of an incomplete request. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    for (const fd of this.#fds) closeFd(fd);
    this.#fds = [];
    this.#unsent = null;
    this.#socket.close();
  }
}
