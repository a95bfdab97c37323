import type { UnixListener, UnixSocket } from '@ivshmem/linux/socket';
import { EPOLLIN, type Poller, Timer } from '@ivshmem/linux/wait';

/** Retry interval while there are no descriptors for clients, in ms. */
const ACCEPT_PAUSE = 1000;
/**
 * How long a client waits for an obstacle to pass, in ms, and how often that is checked. io_uring closes the socket of a
 * QEMU that was killed up to a second late.
 */
const PENDING_PATIENCE = 2000;
const PENDING_INTERVAL = 50;
/** Clients that are accepted, or rejected, before other descriptors get their turn. */
const CLIENTS_AT_ONCE = 16;

/** Why a VMM cannot attach the device. */
export interface Obstacle {
  readonly text: string;
  /** It is expected to pass within about a second. */
  readonly passes: boolean;
}

export interface VmmAcceptorHandlers {
  /** Null if a VMM can attach the device now. */
  obstacle(): Obstacle | null;
  /** Takes over the socket of a VMM; there is no obstacle. Throws SystemCallError, having closed it. */
  attach(socket: UnixSocket): void;
  /** A VMM is disconnected for this reason. */
  rejected(reason: string): void;
  log(text: string): void;
}

/**
 * Accepts the VMMs that connect to a device: one that can attach it does, one waits for an obstacle that is expected to
 * pass, and all others are rejected.
 */
export class VmmAcceptor {
  readonly #listener: UnixListener;
  readonly #poller: Poller;
  readonly #handlers: VmmAcceptorHandlers;
  readonly #acceptTimer: Timer;
  readonly #pendingTimer: Timer;
  /** The client that waits, until a time of performance.now(). */
  #pending: { readonly socket: UnixSocket; readonly until: number } | undefined;
  #started = false;

  /** Takes over the listener. Throws SystemCallError; the listener stays the caller's then. */
  constructor(listener: UnixListener, poller: Poller, handlers: VmmAcceptorHandlers) {
    this.#listener = listener;
    this.#poller = poller;
    this.#handlers = handlers;
    this.#acceptTimer = new Timer(poller, () => this.#accept());
    try {
      this.#pendingTimer = new Timer(poller, () => this.#retryPending());
    } catch (error) {
      this.#acceptTimer.close();
      throw error;
    }
  }

  /** Accepts clients from now on; until then, they stay in the listener's queue. Throws SystemCallError. */
  start(): void {
    if (this.#started) return;
    this.#poller.add(this.#listener.fd, EPOLLIN, () => this.#accept());
    this.#started = true;
  }

  #accept(): void {
    this.#acceptTimer.cancel();
    // It came first.
    this.#retryPending();
    try {
      for (let clients = 0; clients < CLIENTS_AT_ONCE; clients++) {
        const socket = this.#listener.accept();
        if (socket === null) break;
        this.#admit(socket, performance.now() + PENDING_PATIENCE);
      }
      this.#poller.modify(this.#listener.fd, EPOLLIN);
    } catch (error) {
      this.#handlers.log(`${(error as Error).message}; trying again`);
      this.#poller.modify(this.#listener.fd, 0);
      this.#acceptTimer.after(ACCEPT_PAUSE);
    }
  }

  #admit(socket: UnixSocket, until: number): void {
    const obstacle = this.#handlers.obstacle();
    if (obstacle === null) {
      this.#handlers.attach(socket);
    } else if (obstacle.passes && this.#pending === undefined && performance.now() < until) {
      this.#pending = { socket, until };
      this.#pendingTimer.after(PENDING_INTERVAL);
    } else {
      // The counter first, so that a client that sees the end is counted.
      this.#handlers.rejected(obstacle.text);
      socket.close();
    }
  }

  #retryPending(): void {
    const pending = this.#pending;
    if (pending === undefined) return;
    this.#pending = undefined;
    try {
      this.#admit(pending.socket, pending.until);
    } catch (error) {
      this.#handlers.log((error as Error).message);
    }
  }

  /** Disconnects the client that waits, and removes the socket from the file system. */
  close(): void {
    this.#stop();
    this.#listener.close();
  }

  /** Disconnects the client that waits. The socket stays in the file system, for a process that has a duplicate of it. */
  leave(): void {
    this.#stop();
    this.#listener.leave();
  }

  #stop(): void {
    this.#pending?.socket.close();
    this.#pending = undefined;
    if (this.#started) this.#poller.remove(this.#listener.fd);
    this.#acceptTimer.close();
    this.#pendingTimer.close();
  }
}
