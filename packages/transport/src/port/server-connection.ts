import { closeFd, SystemCallError } from '@ivshmem/linux';
import { type PeerCredentials, UnixSocket } from '@ivshmem/linux/socket';
import {
  decodeMessageLength,
  decodeServerMessage,
  type InitMessage,
  MAX_MESSAGE_SIZE,
  MESSAGE_HEADER_SIZE,
  type ServerMessage,
  ServerProtocolError,
} from '../protocol/server-messages.ts';

/** A message of the host server. INIT and EVENT_FD have a descriptor, which the reader of the message owns. */
export type ReceivedMessage =
  | { readonly message: Extract<ServerMessage, { type: 'init' | 'event-fd' }>; readonly fd: number }
  | { readonly message: Extract<ServerMessage, { type: 'peer-gone' }>; readonly fd: null };

/**
 * The client's side of the host server's socket. It reads each header, then the rest, never more: the kernel hands
 * over descriptors with the bytes they were sent with, so one that arrives belongs to the message being read.
 *
 * INIT comes first and once, and later messages keep to the limits it sets; whether a peer's vectors come in order is
 * for the caller to check.
 */
export class ServerConnection {
  readonly #socket: UnixSocket;
  readonly #buffer = new Uint8Array(MAX_MESSAGE_SIZE);
  #filled = 0;
  /** Of the message being read; its header alone as long as that is not complete. */
  #length = MESSAGE_HEADER_SIZE;
  #fds: number[] = [];
  #init: InitMessage | undefined;
  #open = true;
  #keep: ((received: ReceivedMessage) => void) | undefined;

  /** Takes over a connected socket; `init`: INIT has been read already, by the process before. */
  constructor(socket: UnixSocket, init?: InitMessage) {
    this.#socket = socket;
    this.#init = init;
  }

  /** Whether no part of a message has been read. */
  get isBetweenMessages(): boolean {
    return this.#filled === 0 && this.#fds.length === 0;
  }

  /**
   * From now on, calls `keep` with each message while that is still in the socket: a process that is killed before `keep` has
   * returned, or soon after, leaves the message to the next process. An incomplete message stays in the socket, too, so the poller
   * must report new data only (EPOLLET). Call it between messages.
   */
  keepBeforeReading(keep: (received: ReceivedMessage) => void): void {
    this.#keep = keep;
  }

  /** Connects to the host server at `socketPath`. Throws `SystemCallError`, see `UnixSocket.connect`. */
  static connect(socketPath: string): ServerConnection {
    return new ServerConnection(UnixSocket.connect(socketPath));
  }

  /** Which process listens at the path, as of its listen(2). Throws `SystemCallError`. */
  get credentials(): PeerCredentials {
    return this.#socket.peerCredentials();
  }

  /** Readable when there may be something to {@link read}. */
  get fd(): number {
    return this.#socket.fd;
  }

  /**
   * The next message; `'wait'` if it has not arrived completely; `'end'` if the server has closed the
   * connection, or {@link close} has. Throws {@link ServerProtocolError} and `SystemCallError`; the connection is closed then.
   */
  read(): ReceivedMessage | 'wait' | 'end' {
    if (!this.#open) return 'end';
    try {
      return this.#keep === undefined ? this.#read() : this.#peek(this.#keep);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #read(): ReceivedMessage | 'wait' | 'end' {
    for (;;) {
      const received = this.#receive();
      if (received === -1) return 'wait';
      if (received === 0) return this.#end(this.#filled);
      this.#checkFds();
      this.#filled += received;
      if (this.#filled < this.#length) continue;
      if (this.#filled === MESSAGE_HEADER_SIZE) {
        this.#length = decodeMessageLength(this.#buffer);
        continue;
      }
      return this.#take();
    }
  }

  #end(filled: number): 'end' {
    if (filled === 0) return 'end';
    throw new ServerProtocolError(`server closed the connection after ${filled} bytes of a message`);
  }

  #checkFds(): void {
    if (this.#fds.length <= 1) return;
    throw new ServerProtocolError(`server sent ${this.#fds.length} descriptors with a message: expected 1`);
  }

  #peek(keep: (received: ReceivedMessage) => void): ReceivedMessage | 'wait' | 'end' {
    const header = this.#peekBytes(MESSAGE_HEADER_SIZE);
    if (typeof header === 'string') return header;
    const length = decodeMessageLength(this.#buffer);
    const whole = this.#peekBytes(length);
    if (typeof whole === 'string') return whole;
    this.#length = length;
    // A descriptor that a peek returns with it is that of the next message.
    if (decodeServerMessage(this.#buffer.subarray(0, length)).type === 'peer-gone') this.#closeFds();
    this.#checkFds();
    const received = this.#take();
    try {
      keep(received);
      this.#socket.discard(length);
    } catch (error) {
      if (received.fd !== null) closeFd(received.fd);
      throw error;
    }
    return received;
  }

  /** Peeks into the buffer. The descriptors replace those of the peek before. */
  #peekBytes(count: number): 'wait' | 'end' | null {
    this.#closeFds();
    try {
      const { length, ended } = this.#socket.peekBytes(this.#buffer.subarray(0, count), this.#fds);
      if (length === count) return null;
      return ended ? this.#end(length) : 'wait';
    } catch (error) {
      if (isReset(error)) return 'end';
      throw error;
    }
  }

  #closeFds(): void {
    for (const fd of this.#fds) closeFd(fd);
    this.#fds = [];
  }

  #receive(): number {
    try {
      return this.#socket.receive(this.#buffer.subarray(this.#filled, this.#length), this.#fds);
    } catch (error) {
      if (isReset(error)) return 0;
      throw error;
    }
  }

  #take(): ReceivedMessage {
    const message = decodeServerMessage(this.#buffer.subarray(0, this.#length));
    const fd = this.#fds[0] ?? null;
    this.#checkSequence(message);
    if (message.type === 'peer-gone') {
      if (fd !== null) throw new ServerProtocolError('server sent PEER_GONE with a descriptor');
      this.#next();
      return { message, fd };
    }
    if (fd === null) {
      const name = message.type === 'init' ? 'INIT' : 'EVENT_FD';
      throw new ServerProtocolError(`server sent ${name} without a descriptor`);
    }
    this.#next();
    return { message, fd };
  }

  #next(): void {
    this.#filled = 0;
    this.#length = MESSAGE_HEADER_SIZE;
    this.#fds = [];
  }

  #checkSequence(message: ServerMessage): void {
    const init = this.#init;
    if (message.type === 'init') {
      if (init !== undefined) throw new ServerProtocolError('server sent INIT twice');
      this.#init = message;
      return;
    }
    if (init === undefined) throw new ServerProtocolError(`server sent ${message.type} before INIT`);
    if (message.id >= init.maxPeers) {
      throw new ServerProtocolError(
        `server sent id ${message.id}: expected less than max_peers ${init.maxPeers}`,
      );
    }
    if (message.type === 'event-fd' && message.vector >= init.vectors) {
      throw new ServerProtocolError(
        `server sent vector ${message.vector}: expected less than ${init.vectors}`,
      );
    }
  }

  /** Closes the connection, and the descriptors that have arrived but were not read. */
  close(): void {
    this.#open = false;
    this.#closeFds();
    this.#socket.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** The server has died with something unread: to a client that is an end like any other. */
function isReset(error: unknown): boolean {
  return error instanceof SystemCallError && error.code === 'ECONNRESET';
}
