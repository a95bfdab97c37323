import { SystemCallError } from '../errors.ts';
import { closeFd, duplicateFd } from '../fd.ts';
import { EPOLLIN, type Poller } from '../wait/epoll.ts';
import type { UnixListener } from './unix-listener.ts';
import type { UnixSocket } from './unix-socket.ts';

/** Retry interval after accept(2) has failed, in ms. */
const RETRY = 100;
/** Maximum time to accept connections before returning to the event loop, in ms. */
const SLICE = 10;

export interface AcceptorHandlers {
  /** A client has connected. The handler owns the socket. */
  accepted(socket: UnixSocket): void;
  /** A client has connected, but the process is out of descriptors. The handler owns the socket and must close it. */
  rejected(socket: UnixSocket): void;
  /** accept(2) fails and is retried. `text` is the reason. */
  warn(text: string): void;
}

/**
 * Accepts connections on a listener. The caller keeps the listener and closes it. One descriptor is held in reserve:
 * when the process has no others left, it is used to accept and reject a client that would otherwise wait forever.
 */
export class Acceptor {
  readonly #listener: UnixListener;
  readonly #poller: Poller;
  readonly #handlers: AcceptorHandlers;
  #reserve: number | undefined;
  #timer: NodeJS.Timeout | undefined;
  #warned = false;
  #open = true;

  /** Throws SystemCallError. */
  constructor(listener: UnixListener, poller: Poller, handlers: AcceptorHandlers) {
    this.#listener = listener;
    this.#poller = poller;
    this.#handlers = handlers;
    const reserve = duplicateFd(listener.fd);
    this.#reserve = reserve;
    try {
      poller.add(listener.fd, EPOLLIN, () => this.#accept());
    } catch (error) {
      closeFd(reserve);
      throw error;
    }
  }

  #accept(): void {
    const end = performance.now() + SLICE;
    do {
      let socket: UnixSocket | null;
      try {
        socket = this.#listener.accept();
      } catch (error) {
        if (isExhaustion(error) && this.#reject()) continue;
        this.#pause(error);
        return;
      }
      if (socket === null) return;
      this.#warned = false;
      this.#handlers.accepted(socket);
    } while (this.#open && performance.now() < end);
  }

  /** Accepts one client on the reserved descriptor, to reject it. Returns false if there is no such descriptor. */
  #reject(): boolean {
    if (this.#reserve === undefined) return false;
    closeFd(this.#reserve);
    this.#reserve = undefined;
    let socket: UnixSocket | null;
    try {
      socket = this.#listener.accept();
    } catch {
      // Another thread has taken the descriptor.
      return false;
    }
    if (socket !== null) this.#handlers.rejected(socket);
    this.#restoreReserve();
    return true;
  }

  #restoreReserve(): void {
    if (this.#reserve !== undefined) return;
    try {
      this.#reserve = duplicateFd(this.#listener.fd);
    } catch {
      // Left to the next retry.
    }
  }

  /** Stops polling the listener until the next retry: the pending connection would be reported again at once. */
  #pause(error: unknown): void {
    this.#poller.modify(this.#listener.fd, 0);
    this.#timer = setTimeout(() => {
      this.#restoreReserve();
      this.#poller.modify(this.#listener.fd, EPOLLIN);
    }, RETRY);
    if (this.#warned) return;
    this.#warned = true;
    const reason = error instanceof Error ? error.message : String(error);
    this.#handlers.warn(`cannot accept connections, retrying: ${reason}`);
  }

  /** Stops accepting connections and releases the reserved descriptor. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    clearTimeout(this.#timer);
    this.#poller.remove(this.#listener.fd);
    if (this.#reserve !== undefined) closeFd(this.#reserve);
    this.#reserve = undefined;
  }
}

function isExhaustion(error: unknown): boolean {
  return error instanceof SystemCallError && (error.code === 'EMFILE' || error.code === 'ENFILE');
}
