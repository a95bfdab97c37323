import { SystemCallError } from '@ivshmem/linux';
import type { UnixSocket } from '@ivshmem/linux/socket';
import { EPOLLIN, EPOLLOUT, type Poller, Timer } from '@ivshmem/linux/wait';
import type { VfioUserDevice } from '../vfio-user-device.ts';
import { VfioUserConnection } from './connection.ts';
import { VfioUserError } from './messages.ts';

/** How long a client may take to introduce itself, and to complete a request that it has begun, in ms. */
const PATIENCE = 5000;
/** Requests that are dealt with before other descriptors get their turn. */
const REQUESTS_AT_ONCE = 64;

/** What becomes of a session. */
export interface SessionObserver {
  /** The client has introduced itself. */
  attached(pid: number): void;
  /** The session is over; `violation` says what the client did, null where it has just gone. */
  ended(pid: number, violation: string | null): void;
}

/** A connection and the device that it drives, until either end closes it. */
export class VfioUserSession {
  readonly device: VfioUserDevice;
  readonly pid: number;
  readonly #connection: VfioUserConnection;
  readonly #poller: Poller;
  readonly #timer: Timer;
  readonly #observer: SessionObserver;
  #timed = true;
  #muted = false;
  #open = true;

  /** Takes over the socket and the device. Throws SystemCallError, having closed both. */
  constructor(socket: UnixSocket, poller: Poller, device: VfioUserDevice, observer: SessionObserver) {
    this.device = device;
    this.#poller = poller;
    this.#observer = observer;
    let timer: Timer | undefined;
    try {
      this.#connection = new VfioUserConnection(socket);
      this.pid = this.#connection.credentials.pid;
      timer = new Timer(poller, () => this.#expire());
      timer.after(PATIENCE);
      poller.add(socket.fd, EPOLLIN, () => this.advance());
    } catch (error) {
      timer?.close();
      socket.close();
      device.close();
      throw error;
    }
    this.#timer = timer;
  }

  /** Deals with what has come; where that is much, the connection is still readable after it. */
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
        const before = this.device.negotiated;
        const { bytes, fds } = this.device.handle(request);
        if (!before && this.device.negotiated) this.#observer.attached(this.pid);
        if (!request.header.noReply) this.#connection.send(bytes, fds);
      }
    } catch (error) {
      if (!(error instanceof VfioUserError) && !(error instanceof SystemCallError)) throw error;
      this.#end(error.message);
      return;
    }
    this.#watch(requests > 0);
  }

  /** Limits the time of what is incomplete; reads on only when the reply that waits has gone. */
  #watch(progress: boolean): void {
    const timed = this.#connection.isPartial || !this.device.negotiated;
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
    // An expiry that was taken back may still be reported.
    if (!this.#open || !this.#timed) return;
    const what = this.device.negotiated ? 'left a request incomplete' : 'did not introduce itself';
    this.#end(`${what} for ${PATIENCE} ms`);
  }

  #end(violation: string | null): void {
    if (!this.#open) return;
    this.close();
    this.#observer.ended(this.pid, violation);
  }

  /** Disconnects the VMM. The device's state goes to 0. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#poller.remove(this.#connection.fd);
    this.#timer.close();
    this.#connection.close();
    this.device.close();
  }
}
