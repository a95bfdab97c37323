import { type Poller, Timer } from '@ivshmem/linux/wait';
import type { OpeningPort } from './open-server-port.ts';
import type { Port } from './port.ts';

/** Time between two tries, in ms: doubled from the first to the last. */
const FIRST_RETRY = 100;
const LAST_RETRY = 1000;
/** After this many lines in one search, reasons that keep changing are logged once in LINE_INTERVAL ms. */
const LINES = 8;
const LINE_INTERVAL = 60_000;

export interface PortSeekerOptions<P extends Port> {
  readonly poller: Poller;
  /** Opens a port once, see `port-source.ts`. */
  readonly open: (opened: (result: P | Error) => void) => OpeningPort;
  /** Takes ownership of an open port. Throws an Error if it is unusable, having closed it. */
  readonly use: (port: P) => void;
  /** The first port cannot be opened (without `wait`) or used: the search is over. */
  readonly failed: (error: Error) => void;
  readonly log: (text: string) => void;
  /** Whether to wait for the first port if it cannot be opened yet. */
  readonly wait: boolean;
}

/**
 * Opens a port and, whenever {@link seek} is called again, its successor: at once, then after 100 ms, doubled up to
 * 1 s, until one can be used. Logs why there is none, whenever the reason changes, and that there is one again.
 */
export class PortSeeker<P extends Port> {
  readonly #options: PortSeekerOptions<P>;
  readonly #now: () => number;
  readonly #timer: Timer;
  #opening: OpeningPort | undefined;
  #found = false;
  #pausing = false;
  #delay = FIRST_RETRY;
  #reason: string | undefined;
  #lines = 0;
  #lastLine = 0;

  /** `now` is a clock in ms. Throws SystemCallError. */
  constructor(options: PortSeekerOptions<P>, now = () => performance.now()) {
    this.#options = options;
    this.#now = now;
    this.#timer = new Timer(options.poller, () => {
      // An expiry that was cancelled may still be reported.
      if (this.#pausing) this.#try();
    });
  }

  /** Searches from now on; the first try is made in `delay` ms, or before this returns if that is 0. */
  seek(delay = 0): void {
    this.cancel();
    this.#delay = FIRST_RETRY;
    this.#reason = undefined;
    this.#lines = 0;
    if (delay === 0) this.#try();
    else this.#pause(delay);
  }

  /** Ends the search. Without effect if there is none. */
  cancel(): void {
    this.#pausing = false;
    this.#timer.cancel();
    this.#opening?.cancel();
    this.#opening = undefined;
  }

  #pause(delay: number): void {
    this.#pausing = true;
    this.#timer.after(delay);
  }

  #try(): void {
    this.#pausing = false;
    let done = false;
    const opening = this.#options.open((result) => {
      done = true;
      this.#opening = undefined;
      this.#take(result);
    });
    // It may have called back already, and another search may have begun by that.
    if (!done) this.#opening = opening;
  }

  #take(result: P | Error): void {
    const { use, failed, wait, log } = this.#options;
    if (result instanceof Error) {
      if (this.#found || wait) this.retry(result);
      else failed(result);
      return;
    }
    const interrupted = this.#reason !== undefined;
    try {
      use(result);
    } catch (error) {
      if (this.#found) this.retry(error as Error);
      else failed(error as Error);
      return;
    }
    this.#found = true;
    if (interrupted) log('connected');
  }

  /** Continues the search: the last port found turned out to be unusable. */
  retry({ message }: Error): void {
    this.#report(message);
    this.#pause(this.#delay);
    this.#delay = Math.min(this.#delay * 2, LAST_RETRY);
  }

  #report(reason: string): void {
    const now = this.#now();
    if (reason === this.#reason) return;
    if (this.#lines >= LINES && now - this.#lastLine < LINE_INTERVAL) return;
    this.#reason = reason;
    this.#lines++;
    this.#lastLine = now;
    this.#options.log(
      `${this.#found ? 'no connection' : 'waiting for the host server'}: ${reason}; retrying`,
    );
  }

  close(): void {
    this.cancel();
    this.#timer.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
