import { readFileSync, readlinkSync } from 'node:fs';
import { EAGAIN, O_CLOEXEC, O_NONBLOCK } from '../constants.ts';
import { check, SystemCallError } from '../errors.ts';
import * as libc from '../libc.ts';
import { mapPrivate } from '../memory/memory.ts';
import { OwnedFd } from '../owned-fd.ts';

const RWF_NOWAIT = 8;

/** Once a thread, never unmapped: [0] the value 1 to write, [1] the value read, [2] and [3] the iovec of [1]. */
const block = mapPrivate(32);
const words = new BigUint64Array(block.buffer, 0, 4);
const one = block.address;
const iovec = block.address + 16;
words[0] = 1n;
words[2] = BigInt(block.address + 8);
words[3] = 8n;

/** Creates an eventfd, non-blocking and close-on-exec; the caller owns it. Throws {@link SystemCallError}. */
export function createEventFd(): number {
  return check(libc.eventfd(0, O_CLOEXEC | O_NONBLOCK), 'eventfd', 'new');
}

/** Whether a descriptor is an eventfd, according to /proc. */
export function isEventFd(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[eventfd]';
  } catch {
    return false;
  }
}

/**
 * The kernel's number of an eventfd's counter: two descriptors with the same number share it. undefined if `fd` is no
 * eventfd. Source: proc_pid_fdinfo(5), eventfd-id.
 */
export function eventFdId(fd: number): number | undefined {
  if (!isEventFd(fd)) return undefined;
  const [, id] = /^eventfd-id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1')) ?? [];
  return id === undefined ? undefined : Number(id);
}

/**
 * Resets the counter to 0. Returns whether it was signalled. Never blocks, even if another process has cleared O_NONBLOCK, and
 * allocates nothing. Throws {@link SystemCallError}.
 */
export function clearEventFd(fd: number): boolean {
  if (libc.preadv2(fd, iovec, 1, -1, RWF_NOWAIT) === 8) return true;
  const errno = libc.errno();
  if (errno === EAGAIN) return false;
  throw new SystemCallError('preadv2', `eventfd ${fd}`, errno);
}

/** The same, but returns the previous value of the counter: 0n if it was not signalled. */
export function drainEventFd(fd: number): bigint {
  return clearEventFd(fd) ? words[1]! : 0n;
}

/** An eventfd of this process, with an owner. */
export class EventFd extends OwnedFd {
  /** Takes ownership of `fd`, or creates an eventfd. Throws {@link SystemCallError}. */
  constructor(fd: number = createEventFd()) {
    super(fd);
  }

  /**
   * Adds 1 to the counter. Returns false after {@link close}, when the descriptor's number may have been reused. Only for an
   * eventfd that no other process holds; use signalEventFd for others.
   */
  signal(): boolean {
    return this.isOpen && (libc.write(this.fd, one, 8) === 8 || libc.errno() === EAGAIN);
  }

  /** See {@link drainEventFd}. */
  drain(): bigint {
    return drainEventFd(this.fd);
  }
}
