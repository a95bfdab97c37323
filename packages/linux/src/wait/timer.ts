import { O_CLOEXEC, O_NONBLOCK } from '../constants.ts';
import { check } from '../errors.ts';
import * as libc from '../libc.ts';
import { mapPrivate } from '../memory/memory.ts';
import { OwnedFd } from '../owned-fd.ts';
import { EPOLLIN, type Poller } from './epoll.ts';

const CLOCK_MONOTONIC = 1;

/** Takes the number of expirations, which nobody asks for. Once a thread, never unmapped. */
const expirations = mapPrivate(8);

/** A timer that a {@link Poller} watches: it also runs in a thread that has no event loop. */
export class Timer extends OwnedFd {
  readonly #poller: Poller;
  /** struct itimerspec {interval, value}, each {i64 seconds, i64 nanoseconds}. */
  readonly #specification = new BigInt64Array(4);
  readonly #bytes = new Uint8Array(this.#specification.buffer);

  /** A timer at rest that calls `handler` on `poller`. Throws `SystemCallError`. */
  constructor(poller: Poller, handler: () => void) {
    super(check(libc.timerfdCreate(CLOCK_MONOTONIC, O_CLOEXEC | O_NONBLOCK), 'timerfd_create', 'new'));
    this.#poller = poller;
    try {
      poller.add(this.fd, EPOLLIN, () => {
        // The kernel sets the next expiry of an interval when the last one is read.
        libc.read(this.fd, expirations.address, 8);
        handler();
      });
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Calls the handler in `delay` ms (> 0), once, instead of what was set before. */
  after(delay: number): void {
    this.#set(delay, 0);
  }

  /** Calls the handler every `interval` ms (> 0) instead of what was set before. */
  every(interval: number): void {
    this.#set(interval, interval);
  }

  /** Takes back what was set. An expiry that has been reported already may still be handled. */
  cancel(): void {
    this.#set(0, 0);
  }

  #set(delay: number, interval: number): void {
    this.#specification[0] = BigInt(Math.floor(interval / 1000));
    this.#specification[1] = BigInt(Math.round((interval % 1000) * 1e6));
    this.#specification[2] = BigInt(Math.floor(delay / 1000));
    this.#specification[3] = BigInt(Math.round((delay % 1000) * 1e6));
    check(libc.timerfdSettime(this.fd, 0, this.#bytes, null), 'timerfd_settime', `${delay} ms`);
  }

  protected override release(): void {
    this.#poller.remove(this.fd);
  }
}
