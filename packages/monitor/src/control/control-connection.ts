import { closeFd, duplicateFd } from '@ivshmem/linux';
import type { UnixSocket } from '@ivshmem/linux/socket';
import { EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, type Poller } from '@ivshmem/linux/wait';

/** Maximum length of a request in bytes. */
const MAX_REQUEST = 65536;
/** Maximum number of descriptors in a request. */
const MAX_REQUEST_FDS = 16;
/** Messages beyond this number of unsent bytes are rejected by {@link ControlClient.send}. */
const MAX_UNSENT = 1 << 20;
/** Time limit for a client to send its request, and to read anything of what is pending, in ms. */
const PATIENCE = 5000;

/** A request: a verb, and what it takes. Of a received one, only the verb has been checked. */
export interface ControlRequest {
  readonly verb: string;
  readonly [field: string]: unknown;
}

/** The client of a request, as its handler sees it. */
export interface ControlClient {
  /** Aborted when the client has disconnected: stop what is done for it. */
  readonly signal: AbortSignal;
  /**
   * Sends a message, any value of JSON, with up to 16 descriptors, of which the caller keeps its own. Returns false, and sends
   * nothing, if the client has not read 1 MiB of earlier messages, or has disconnected. A client that reads nothing for 5 s is
   * disconnected. Throws SystemCallError if a descriptor cannot be duplicated.
   */
  send(data: unknown, fds?: readonly number[]): boolean;
  /** The descriptors received with the request; the caller owns them. Those that are not taken are closed with the connection. */
  takeFds(): number[];
}

/**
 * Answers requests of one verb. What it returns is sent as the last message, unless it is undefined. An error that it throws
 * is sent as its message.
 */
export type ControlHandler = (request: ControlRequest, client: ControlClient) => unknown;

/** What a connection needs from its server. */
interface ConnectionUser {
  handlerOf(verb: string): ControlHandler | undefined;
  verbs(): string[];
  closed(): void;
}

interface Pending {
  bytes: Uint8Array;
  /** Duplicates, sent with the first byte. */
  fds: readonly number[];
}

/** One client of a control socket: one request, any number of messages in reply. It cannot delay the process. */
export class ControlConnection implements ControlClient {
  readonly #socket: UnixSocket;
  readonly #poller: Poller;
  readonly #user: ConnectionUser;
  readonly #left = new AbortController();
  #request = Buffer.alloc(0);
  #fds: number[] = [];
  #pending: Pending[] = [];
  #unsent = 0;
  #answering = false;
  /** No further messages; close when all are sent. */
  #ending = false;
  #open = true;
  #timer: NodeJS.Timeout | undefined;

  /** Owns the socket. */
  constructor(socket: UnixSocket, poller: Poller, user: ConnectionUser) {
    this.#socket = socket;
    this.#poller = poller;
    this.#user = user;
  }

  begin(): void {
    this.#limitTime();
    try {
      this.#poller.add(this.#socket.fd, EPOLLIN, (events) => this.#ready(events));
    } catch {
      this.close();
    }
  }

  get signal(): AbortSignal {
    return this.#left.signal;
  }

  takeFds(): number[] {
    return this.#fds.splice(0);
  }

  send(data: unknown, fds: readonly number[] = []): boolean {
    if (!this.#open || this.#ending || this.#unsent >= MAX_UNSENT) return false;
    this.#push({ data, ...(fds.length > 0 && { fds: fds.length }) }, fds);
    return this.#open;
  }

  #ready(events: number): void {
    try {
      // A client that has closed its side only for writing waits for the reply, and reports no EPOLLHUP.
      if ((events & (EPOLLERR | EPOLLHUP)) !== 0) this.close();
      else if (this.#answering) this.#flush();
      else this.#receive();
    } catch {
      // The client has disconnected, or sent more descriptors than this process can have.
      this.close();
    }
  }

  #receive(): void {
    const chunk = new Uint8Array(16384);
    const length = this.#socket.receive(chunk, this.#fds);
    if (length === -1) return;
    const end = chunk.subarray(0, length).indexOf(0x0a);
    const used = end === -1 ? length : end;
    if (length === 0 || this.#request.length + used > MAX_REQUEST || this.#fds.length > MAX_REQUEST_FDS) {
      this.close();
      return;
    }
    this.#request = Buffer.concat([this.#request, chunk.subarray(0, used)]);
    if (end !== -1) this.#answer();
  }

  /** Nothing that the client sends after its request is read. */
  #answer(): void {
    this.#answering = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#poller.modify(this.#socket.fd, 0);
    const text = this.#request.toString();
    this.#request = Buffer.alloc(0);
    void this.#run(text);
  }

  async #run(text: string): Promise<void> {
    try {
      const request = decodeRequest(text);
      const handler = this.#user.handlerOf(request.verb);
      if (handler === undefined) {
        throw new Error(`unknown verb ${JSON.stringify(request.verb)}: use ${this.#user.verbs().join(', ')}`);
      }
      const data = await handler(request, this);
      if (data !== undefined) this.#push({ data }, []);
    } catch (error) {
      const { message, code } =
        error instanceof Error ? (error as NodeJS.ErrnoException) : { message: String(error) };
      this.#push({ error: message, ...(code !== undefined && { code }) }, []);
    }
    this.#ending = true;
    if (this.#open && this.#pending.length === 0) this.close();
  }

  #push(message: object, fds: readonly number[]): void {
    if (!this.#open) return;
    const bytes = Buffer.from(`${JSON.stringify(message)}\n`);
    const duplicates: number[] = [];
    try {
      for (const fd of fds) duplicates.push(duplicateFd(fd));
    } catch (error) {
      duplicates.forEach(closeFd);
      throw error;
    }
    this.#pending.push({ bytes, fds: duplicates });
    this.#unsent += bytes.length;
    try {
      this.#flush();
    } catch {
      this.close();
    }
  }

  /** Sends as much as the socket accepts. Throws SystemCallError if the client has disconnected. */
  #flush(): void {
    let sentAny = false;
    while (this.#pending.length > 0) {
      const entry = this.#pending[0]!;
      const sent = this.#socket.send(entry.bytes, entry.fds);
      if (sent === 0) {
        if (sentAny || this.#timer === undefined) this.#limitTime();
        this.#poller.modify(this.#socket.fd, EPOLLOUT);
        return;
      }
      sentAny = true;
      this.#unsent -= sent;
      entry.fds.forEach(closeFd);
      entry.fds = [];
      if (sent === entry.bytes.length) this.#pending.shift();
      else entry.bytes = entry.bytes.subarray(sent);
    }
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#ending) this.close();
    else this.#poller.modify(this.#socket.fd, 0);
  }

  #limitTime(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.close(), PATIENCE);
  }

  /** Disconnects the client and closes the descriptors that are pending. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    clearTimeout(this.#timer);
    this.#poller.remove(this.#socket.fd);
    this.#socket.close();
    for (const { fds } of this.#pending) fds.forEach(closeFd);
    this.#pending = [];
    this.takeFds().forEach(closeFd);
    this.#user.closed();
    this.#left.abort();
  }
}

/** Throws an Error of one line. */
function decodeRequest(text: string): ControlRequest {
  let request: unknown;
  try {
    request = JSON.parse(text);
  } catch {
    throw new Error('the request is not a line of JSON');
  }
  const { verb } = (request ?? {}) as { verb?: unknown };
  if (typeof verb !== 'string') throw new Error('the request has no verb');
  return request as ControlRequest;
}
