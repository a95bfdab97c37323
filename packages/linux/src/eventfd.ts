import { readlinkSync } from 'node:fs';
import { EAGAIN, O_CLOEXEC, O_NONBLOCK } from './constants.ts';
import { check, SystemCallError } from './errors.ts';
import { closeFd, duplicateFd, setNonBlocking } from './fd.ts';
import * as libc from './libc.ts';
import { mapPrivate } from './memory.ts';

const RWF_NOWAIT = 8;

/** Once a thread, never unmapped: [0] the value 1 to write, [1] the value read, [2] and [3] the iovec of [1]. */
const block = mapPrivate(32);
const words = new BigUint64Array(block.buffer, 0, 4);
const one = block.address;
const iovec = block.address + 16;
words[0] = 1n;
words[2] = BigInt(block.address + 8);
words[3] = 8n;

/** A new eventfd, non-blocking and close-on-exec; the caller owns it. Throws {@link SystemCallError}. */
export function createEventFd(): number {
  return check(libc.eventfd(0, O_CLOEXEC | O_NONBLOCK), 'eventfd', 'new');
}

/** Whether a descriptor is an eventfd, as /proc tells. */
export function isEventFd(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[eventfd]';
  } catch {
    return false;
  }
}

/** Which write this thread is in: [0] changes with each write, [1] is its eventfd, -1 in between. */
let writes = new Int32Array(2).fill(-1);

/**
 * Makes this thread tell in `cells`, of shared memory, which eventfd it is writing to, so that another thread can
 * help it out: see {@link BlockedWriteWatch}.
 */
export function reportEventFdWrites(cells: Int32Array<SharedArrayBuffer>): void {
  Atomics.store(cells, 1, -1);
  writes = cells as unknown as Int32Array<ArrayBuffer>;
}

/**
 * Looks after a thread that writes to eventfds which others hold, too: {@link check}, called now and then, finds a
 * write that has been blocked since the last call, empties the counter, and makes the eventfd non-blocking again.
 */
export class BlockedWriteWatch {
  /** For {@link reportEventFdWrites} in the other thread. */
  readonly cells = new Int32Array(new SharedArrayBuffer(8)).fill(-1);
  #seen = -1;

  /** Returns whether the thread is in a write: if so, look again soon. */
  check(): boolean {
    const write = Atomics.load(this.cells, 0);
    const fd = Atomics.load(this.cells, 1);
    const writing = fd !== -1;
    const blocked = writing && write === this.#seen;
    this.#seen = writing ? write : write - 1;
    if (blocked) this.#free(write, fd);
    return writing;
  }

  #free(write: number, fd: number): void {
    try {
      // If it is the same write still, this is its eventfd, whatever the thread may close from now on.
      const own = duplicateFd(fd);
      try {
        if (Atomics.load(this.cells, 0) !== write || Atomics.load(this.cells, 1) !== fd) return;
        setNonBlocking(own);
        clearEventFd(own);
      } finally {
        closeFd(own);
      }
    } catch {
      // The descriptor is gone already, or is no eventfd; or there are too many open files, which may be better next time.
    }
  }
}

/**
 * Adds 1 to the counter, which wakes whoever waits for it. Allocates nothing. A counter at its limit stays there:
 * whoever waits has been woken long since. Returns false where the descriptor is not a writable eventfd.
 *
 * Whoever else holds the eventfd can make this block, by taking O_NONBLOCK off and bringing the counter to its limit;
 * {@link drainEventFd} from another thread lets it go on, see {@link BlockedWriteWatch}.
 */
export function signalEventFd(fd: number): boolean {
  Atomics.add(writes, 0, 1);
  Atomics.store(writes, 1, fd);
  const written = libc.write(fd, one, 8) === 8 || libc.errno() === EAGAIN;
  Atomics.store(writes, 1, -1);
  return written;
}

/**
 * Takes the counter back to 0. Returns whether anything was signalled. Never blocks, even where somebody took
 * O_NONBLOCK off, and allocates nothing. Throws {@link SystemCallError}.
 */
export function clearEventFd(fd: number): boolean {
  if (libc.preadv2(fd, iovec, 1, -1, RWF_NOWAIT) === 8) return true;
  const errno = libc.errno();
  if (errno === EAGAIN) return false;
  throw new SystemCallError('preadv2', `eventfd ${fd}`, errno);
}

/** The same, but returns what the counter was: 0n where nothing was signalled. */
export function drainEventFd(fd: number): bigint {
  return clearEventFd(fd) ? words[1]! : 0n;
}

/** An eventfd with an owner. */
export class EventFd {
  readonly fd: number;
  #open = true;

  /** Takes over `fd`, or makes a new one. Throws {@link SystemCallError}. */
  constructor(fd: number = createEventFd()) {
    this.fd = fd;
  }

  /** See {@link signalEventFd}. False after {@link close}: the number may be somebody else's by then. */
  signal(): boolean {
    return this.#open && signalEventFd(this.fd);
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
