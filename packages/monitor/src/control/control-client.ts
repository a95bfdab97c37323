import { closeFd, SystemCallError } from '@ivshmem/linux';
import { type PeerCredentials, UnixSocket } from '@ivshmem/linux/socket';
import { EPOLLIN, mainPoller, type Poller } from '@ivshmem/linux/wait';
import type { ControlRequest } from './control-connection.ts';

/** Maximum length of a message in bytes: another program may listen at the path. */
const MAX_MESSAGE = 16 * 1024 * 1024;
/** Default time limit for each message, in ms. */
const TIMEOUT = 5000;

/** A message in reply to a request. */
export interface ControlMessage {
  /** From another process: check it. */
  readonly data: unknown;
  /** Received with it; the caller owns and closes them. */
  readonly fds: readonly number[];
}

export interface ControlRequestOptions {
  /** Descriptors to send with the request; the caller keeps its own. */
  readonly fds?: readonly number[];
  /** Time limit for each message, in ms; null for none. Default: 5000. */
  readonly timeout?: number | null;
  /** Disconnects, and ends the messages with its reason. */
  readonly signal?: AbortSignal;
  /** Called with the credentials of the process that listens, before any message. */
  readonly connected?: (server: PeerCredentials) => void;
  readonly poller?: Poller;
}

/**
 * Sends a request to the control socket at `path`, and yields the messages of the reply until the process ends it. To leave
 * earlier, leave the loop. Throws an Error of one line: if no process listens (SystemCallError: ENOENT, ECONNREFUSED, EACCES),
 * it reports an error, or its reply is invalid or late.
 */
export async function* requestControl(
  path: string,
  request: ControlRequest,
  options: ControlRequestOptions = {},
): AsyncGenerator<ControlMessage, void, undefined> {
  const { fds = [], timeout = TIMEOUT, signal, poller = mainPoller } = options;
  signal?.throwIfAborted();
  using socket = UnixSocket.connect(path);
  options.connected?.(socket.peerCredentials());
  const text = Buffer.from(`${JSON.stringify(request)}\n`);
  // It fits into the buffer of a new socket.
  if (socket.send(text, fds) !== text.length) throw new Error(`${path}: the request is too long`);
  const reader = new MessageReader(socket);
  try {
    for (;;) {
      const message = reader.next();
      if (message === 'end') return;
      if (message !== null) {
        yield message;
        continue;
      }
      await readable(socket, poller, timeout, signal);
    }
  } catch (error) {
    if (signal?.aborted) throw error;
    if (error instanceof SystemCallError) throw new Error(`${path}: ${error.code}: the process has ended`);
    throw new Error(`${path}: ${(error as Error).message}`, { cause: error });
  } finally {
    reader.close();
  }
}

/** Waits for data or the end. Rejects with an Error of one line after `timeout` ms, and with the reason of `signal`. */
async function readable(
  socket: UnixSocket,
  poller: Poller,
  timeout: number | null,
  signal: AbortSignal | undefined,
): Promise<void> {
  signal?.throwIfAborted();
  let timer: NodeJS.Timeout | undefined;
  let onAbort = () => {};
  try {
    await new Promise<void>((resolve, reject) => {
      onAbort = () => reject(signal?.reason);
      signal?.addEventListener('abort', onAbort);
      if (timeout !== null) {
        timer = setTimeout(() => reject(new Error(`no reply within ${timeout / 1000} s`)), timeout);
      }
      poller.add(socket.fd, EPOLLIN, () => resolve());
    });
  } finally {
    poller.remove(socket.fd);
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

/** Sends a request whose reply is one message without descriptors. Throws as {@link requestControl} does. */
export async function askControl(
  path: string,
  request: ControlRequest,
  options: ControlRequestOptions = {},
): Promise<unknown> {
  for await (const { data, fds } of requestControl(path, request, options)) {
    fds.forEach(closeFd);
    return data;
  }
  throw new Error(`${path}: no reply`);
}

/** Takes messages from a socket. */
class MessageReader {
  readonly #socket: UnixSocket;
  readonly #fds: number[] = [];
  readonly #chunk = new Uint8Array(65536);
  #parts: Buffer[] = [];
  #length = 0;
  #rest: Buffer = Buffer.alloc(0);

  constructor(socket: UnixSocket) {
    this.#socket = socket;
  }

  /** The next message; null if it has not arrived yet. Throws an Error of one line. */
  next(): ControlMessage | 'end' | null {
    for (;;) {
      const end = this.#rest.indexOf(0x0a);
      const part = this.#rest.subarray(0, end === -1 ? undefined : end);
      this.#parts.push(part);
      this.#length += part.length;
      if (this.#length > MAX_MESSAGE) throw new Error(`the reply is longer than ${MAX_MESSAGE} bytes`);
      if (end !== -1) {
        const line = Buffer.concat(this.#parts).toString();
        this.#parts = [];
        this.#length = 0;
        this.#rest = this.#rest.subarray(end + 1);
        return this.#decode(line);
      }
      const received = this.#socket.receive(this.#chunk, this.#fds);
      this.#rest = Buffer.from(this.#chunk.subarray(0, Math.max(received, 0)));
      if (received === -1) return null;
      if (received > 0) continue;
      if (this.#length > 0) throw new Error('invalid reply: is it the control socket of an ivshmem process?');
      return 'end';
    }
  }

  #decode(line: string): ControlMessage {
    let message: { data?: unknown; error?: unknown; code?: unknown; fds?: unknown } | null = null;
    try {
      message = JSON.parse(line);
    } catch {
      // Reported below.
    }
    const { error, fds: count = 0 } = message ?? {};
    if (typeof error === 'string') throw new Error(error);
    const isValid = message !== null && typeof message === 'object' && 'data' in message;
    if (
      !isValid ||
      !Number.isInteger(count) ||
      (count as number) < 0 ||
      (count as number) > this.#fds.length
    ) {
      throw new Error('invalid reply: is it the control socket of an ivshmem process?');
    }
    return { data: message!.data, fds: this.#fds.splice(0, count as number) };
  }

  /** Closes the descriptors that belong to no message. */
  close(): void {
    this.#fds.splice(0).forEach(closeFd);
  }
}
