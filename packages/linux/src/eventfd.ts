import { EAGAIN, O_CLOEXEC, O_NONBLOCK } from './constants.ts';
import { check, SystemCallError } from './errors.ts';
import { closeFd } from './fd.ts';
import * as libc from './libc.ts';
import { mapPrivate } from './memory.ts';

/** One page a thread, never unmapped: [0] the counter value 1 to write, [1] the value that was read. */
const counters = mapPrivate(16);
const counter = new BigUint64Array(counters.buffer, 0, 2);
counter[0] = 1n;
const one = counters.address;
const received = counters.address + 8;

/** A new eventfd, non-blocking and close-on-exec; the caller owns it. Throws {@link SystemCallError}. */
export function createEventFd(): number {
  return check(libc.eventfd(0, O_CLOEXEC | O_NONBLOCK), 'eventfd', 'new');
}

/**
 * Adds 1 to the counter, which wakes whoever waits for it. Allocates nothing. A counter at its limit stays there:
 * whoever waits has been woken long since. Returns false where the descriptor is not a writable eventfd.
 */
export function signalEventFd(fd: number): boolean {
  return libc.write(fd, one, 8) === 8 || libc.errno() === EAGAIN;
}

/**
 * Takes the counter back to 0 and returns what it was, 0n where nothing was signalled (on a non-blocking
 * descriptor). Throws {@link SystemCallError}.
 */
export function drainEventFd(fd: number): bigint {
  if (libc.read(fd, received, 8) === 8) return counter[1]!;
  const errno = libc.errno();
  if (errno === EAGAIN) return 0n;
  throw new SystemCallError('read', `eventfd ${fd}`, errno);
}

/** An eventfd with an owner. */
export class EventFd {
  readonly fd: number;
  #open = true;

  /** Takes over `fd`, or makes a new one. Throws {@link SystemCallError}. */
  constructor(fd: number = createEventFd()) {
    this.fd = fd;
  }

  /** See {@link signalEventFd}. */
  signal(): boolean {
    return signalEventFd(this.fd);
  }

  /** See {@link drainEventFd}. */
  drain(): bigint {
    return drainEventFd(this.fd);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeFd(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
