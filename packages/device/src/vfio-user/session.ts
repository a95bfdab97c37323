import { SystemCallError } from '@ivshmem/linux';
import type { UnixSocket } from '@ivshmem/linux/socket';
import { EPOLLIN, EPOLLOUT, type Poller, Timer } from '@ivshmem/linux/wait';
import { VfioUserConnection } from './connection.ts';
import type { InterruptVectors } from './interrupt-vectors.ts';
import type { Journal } from './journal.ts';
import type { KeptEventFds } from './kept-eventfds.ts';
import { VfioUserError } from './messages.ts';
import type { PciDevice } from './pci-device.ts';
import { RequestHandler } from './request-handler.ts';

/** How long a client may take to send VERSION, and to complete a request that it has begun, in ms. */
const PATIENCE = 5000;
/** Requests that are handled before other descriptors get their turn. */
const REQUESTS_AT_ONCE = 64;

export interface SessionOptions {
  /** The session calls its close() at the end. */
  readonly device: PciDevice;
  /** Those of the device; the VMM's eventfds are closed at the end. */
  readonly vectors: InterruptVectors;
  /** The request in work: empty, or that of an earlier process, whose session this one continues. */
  readonly journal: Journal;
  /** Keeps the VMM's eventfds for a later process. */
  readonly kept?: KeptEventFds | undefined;
  /** Descriptors of the request in work that are in the journal of an earlier process; the session takes them over. */
  readonly requestFds?: number[];
  /** The client has sent VERSION. */
  readonly attached: (pid: number) => void;
  /** The session is over; `violation` says what the client did wrong, null if it has disconnected. Not after close(). */
  readonly ended: (pid: number, violation: string | null) => void;
}

/** One VMM and the PCI device that it uses, until either end disconnects. */
export class VfioUserSession {
  readonly pid: number;
  readonly #connection: VfioUserConnection;
  readonly #handler: RequestHandler;
  readonly #poller: Poller;
  readonly #timer: Timer;
  readonly #options: SessionOptions;
  #timed = true;
  #muted = false;
  #open = true;

  /**
   * Takes over the socket and the device. Call {@link advance} if there is a request in work. Throws SystemCallError, having
   * closed both.
   */
  constructor(socket: UnixSocket, poller: Poller, options: SessionOptions) {
    const { journal, kept, requestFds } = options;
    this.#handler = new RequestHandler(options.device, options.vectors, journal.negotiated);
    this.#poller = poller;
    this.#options = options;
    let timer: Timer | undefined;
    try {
      this.#connection = new VfioUserConnection(socket, journal, kept, requestFds);
      this.pid = this.#connection.credentials.pid;
      timer = new Timer(poller, () => this.#expire());
      timer.after(PATIENCE);
      poller.add(socket.fd, EPOLLIN, () => this.advance());
    } catch (error) {
      timer?.close();
      socket.close();
      options.device.close();
      throw error;
    }
    this.#timer = timer;
  }

  /** Handles pending requests. If there are many, the connection is still readable afterwards. */
  advance(): void {
    let requests = 0;
    try {
      if (this.#connection.isBlocked) this.#connection.flush();
      for (; requests < REQUESTS_AT_ONCE; requests++) {
        const request = this.#connection.read();
        if (request === 'wait') break;
        if (request === 'end') {
          this.#end(null);
          return;
        }
        const before = this.#handler.negotiated;
        const reply = this.#handler.handle(request);
        if (!before && this.#handler.negotiated) this.#options.attached(this.pid);
        this.#connection.answer(request.header.noReply ? null : reply, this.#handler.negotiated);
      }
    } catch (error) {
      if (!(error instanceof VfioUserError) && !(error instanceof SystemCallError)) throw error;
      this.#end(error.message);
      return;
    }
    this.#watch(requests > 0);
  }

  /** Limits the time for what is incomplete. While a reply is pending, no request is read. */
  #watch(progress: boolean): void {
    const timed = this.#connection.isPartial || !this.#handler.negotiated;
    if (timed !== this.#timed || (timed && progress)) {
      this.#timed = timed;
      if (timed) this.#timer.after(PATIENCE);
      else this.#timer.cancel();
    }
    const muted = this.#connection.isBlocked;
    if (muted === this.#muted) return;
    this.#muted = muted;
    this.#poller.modify(this.#connection.fd, muted ? EPOLLOUT : EPOLLIN);
  }

  #expire(): void {
    // An expiry that was cancelled may still be reported.
    if (!this.#open || !this.#timed) return;
    const what = this.#handler.negotiated ? 'left a request incomplete' : 'did not send VERSION';
    this.#end(`${what} for ${PATIENCE} ms`);
  }

  #end(violation: string | null): void {
    if (!this.#open) return;
    this.close();
    this.#options.ended(this.pid, violation);
  }

  /** Disconnects the VMM, and closes the device. */
  close(): void {
    if (!this.#open) return;
    this.#stop();
    this.#connection.close();
    this.#options.vectors.clear();
    this.#options.kept?.settle();
    this.#options.device.close();
  }

  /** Ends it in this process only: the VMM stays connected, and a later process continues with the journal. */
  leave(): void {
    if (!this.#open) return;
    this.#stop();
    this.#connection.leave();
    this.#options.vectors.leave();
  }

  #stop(): void {
    this.#open = false;
    this.#poller.remove(this.#connection.fd);
    this.#timer.close();
  }
}
