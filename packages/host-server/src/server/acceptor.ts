import { closeFd, duplicateFd, SystemCallError } from '@ivshmem/linux';
import type { UnixListener, UnixSocket } from '@ivshmem/linux/socket';
import { EPOLLIN, type Poller } from '@ivshmem/linux/wait';

/** How long to leave alone what the kernel cannot give, in ms. */
const RETRY = 100;
/** How long to accept connections before others get their turn, in ms. */
const SLICE = 10;

export interface AcceptorHandlers {
  /** Takes over the socket of a client that has connected. */
  admit(socket: UnixSocket): void;
  /** Takes over the socket of a client that this process has no descriptors for. */
  turnAway(socket: UnixSocket): void;
  /** Clients wait, for the reason given. */
  warn(text: string): void;
}

/**
 * Accepts the clients of a listener, which stays the caller's. It keeps a descriptor in reserve: where there is no
 * other any more, a client is told so by the end of its connection instead of being left to wait.
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
        if (isExhaustion(error) && this.#turnAway()) continue;
        this.#wait(error);
        return;
      }
      if (socket === null) return;
      this.#warned = false;
      this.#handlers.admit(socket);
    } while (this.#open && performance.now() < end);
  }

  /** Accepts one client by means of the reserve; false where there is none. */
  #turnAway(): boolean {
    if (this.#reserve === undefined) return false;
    closeFd(this.#reserve);
    this.#reserve = undefined;
    let socket: UnixSocket | null;
    try {
      socket = this.#listener.accept();
    } catch {
      // Another thread was faster.
      return false;
    }
    if (socket !== null) this.#handlers.turnAway(socket);
    this.#restoreReserve();
    return true;
  }

  #restoreReserve(): void {
    if (this.#reserve !== undefined) return;
    try {
      this.#reserve = duplicateFd(this.#listener.fd);
    } catch {
      // The next retry tries again.
    }
  }

  /** The connection stays in the backlog, and would be reported again at once. */
  #wait(error: unknown): void {
    this.#poller.modify(this.#listener.fd, 0);
    this.#timer = setTimeout(() => {
      this.#restoreReserve();
      this.#poller.modify(this.#listener.fd, EPOLLIN);
    }, RETRY);
    if (this.#warned) return;
    this.#warned = true;
    this.#handlers.warn(`connections wait: ${error instanceof Error ? error.message : String(error)}`);
  }

  /** Stops accepting. */
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
