import { O_CLOEXEC, O_NONBLOCK } from '../constants.ts';
import { check } from '../errors.ts';
import * as libc from '../libc.ts';
import { mapPrivate } from '../memory/memory.ts';
import { OwnedFd } from '../owned-fd.ts';
import { EPOLLIN, type Poller } from './epoll.ts';

const CLOCK_MONOTONIC = 1;

/** Receives the number of expirations, which is not used. One per thread, never unmapped. */
const expirations = mapPrivate(8);

/** A timer polled by a {@link Poller}, so that it also works in a thread without an event loop. */
export class Timer extends OwnedFd {
  readonly #poller: Poller;
  /** struct itimerspec {interval, value}, each {i64 seconds, i64 nanoseconds}. */
  readonly #specification = new BigInt64Array(4);
  readonly #bytes = new Uint8Array(this.#specification.buffer);

  /** Creates a disarmed timer that calls `handler` on `poller`. Throws `SystemCallError`. */
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

  /** Arms the timer to call the handler once, in `delay` ms (> 0), replacing any earlier setting. */
  after(delay: number): void {
    this.#set(delay, 0);
  }

  /** Arms the timer to call the handler every `interval` ms (> 0), replacing any earlier setting. */
  every(interval: number): void {
    this.#set(interval, interval);
  }

  /** Disarms the timer. An expiry that has already been reported may still be handled. */
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
