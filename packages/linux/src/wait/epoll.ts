import { endianness } from 'node:os';
import { EINTR, O_CLOEXEC } from '../constants.ts';
import { check, SystemCallError } from '../errors.ts';
import * as libc from '../libc.ts';
import { type Mapping, mapPrivate } from '../memory/memory.ts';
import { OwnedFd } from '../owned-fd.ts';

if (endianness() !== 'LE') throw new Error('only little-endian machines are supported');

const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;

/** Events of epoll(7). */
export const EPOLLIN = 1;
export const EPOLLOUT = 4;
export const EPOLLERR = 8;
export const EPOLLHUP = 0x10;
export const EPOLLRDHUP = 0x2000;
/** Edge-triggered: report each arrival once. On an eventfd, each signal is an arrival, so it need not be read. */
export const EPOLLET = 0x80000000;

/** Called with the events that were reported for a descriptor. */
export type EventHandler = (events: number) => void;

/**
 * Polls descriptors and calls a handler when they are ready: {@link Epoll} in a thread that may block, `main-poller.ts` on an
 * event loop.
 */
export interface Poller {
  /** Starts polling `fd` for `events`. Throws {@link SystemCallError} (EEXIST if it is already polled). */
  add(fd: number, events: number, handler: EventHandler): void;
  /** Changes the events to poll for; with 0 only errors and hang-ups are reported. */
  modify(fd: number, events: number): void;
  /** Stops polling `fd`; call this before closing it. No effect if it is not polled. */
  remove(fd: number): void;
}

// struct epoll_event {u32 events; u64 data}, which only x86-64 packs. data = {u32 fd, u32 registration}.
const packed = process.arch === 'x64';
const EVENT_WORDS = packed ? 3 : 4;
const DATA_WORD = packed ? 1 : 2;
const CAPACITY = 64;

/** epoll(7) with a handler for each descriptor. {@link wait} blocks its thread and allocates nothing. */
export class Epoll extends OwnedFd implements Poller {
  readonly #memory: Mapping;
  readonly #events: Uint32Array;
  readonly #scratch = new Uint32Array(EVENT_WORDS);
  readonly #scratchBytes = new Uint8Array(this.#scratch.buffer);
  /** By descriptor; a sparse array would be slow, but descriptors are small and dense. */
  readonly #handlers: (EventHandler | undefined)[] = [];
  readonly #registrations: number[] = [];
  #registration = 0;
  #watched = 0;

  constructor() {
    super(check(libc.epollCreate1(O_CLOEXEC), 'epoll_create1', 'new'));
    this.#memory = mapPrivate(CAPACITY * EVENT_WORDS * 4);
    this.#events = new Uint32Array(this.#memory.buffer);
  }

  /** Number of polled descriptors. */
  get size(): number {
    return this.#watched;
  }

  add(fd: number, events: number, handler: EventHandler): void {
    const registration = (this.#registration + 1) >>> 0;
    this.#control(EPOLL_CTL_ADD, fd, events, registration);
    this.#registration = registration;
    while (this.#handlers.length <= fd) {
      this.#handlers.push(undefined);
      this.#registrations.push(0);
    }
    this.#handlers[fd] = handler;
    this.#registrations[fd] = registration;
    this.#watched++;
  }

  modify(fd: number, events: number): void {
    this.#control(EPOLL_CTL_MOD, fd, events, this.#registrations[fd] ?? 0);
  }

  remove(fd: number): void {
    if (this.#handlers[fd] === undefined) return;
    this.#handlers[fd] = undefined;
    this.#watched--;
    libc.epollCtl(this.fd, EPOLL_CTL_DEL, fd, null);
  }

  #control(operation: number, fd: number, events: number, registration: number): void {
    this.#scratch[0] = events >>> 0;
    this.#scratch[DATA_WORD] = fd;
    this.#scratch[DATA_WORD + 1] = registration;
    check(libc.epollCtl(this.fd, operation, fd, this.#scratchBytes), 'epoll_ctl', `fd ${fd}`);
  }

  /**
   * Waits up to `timeout` ms (-1: forever, 0: not at all) and calls the handlers of ready descriptors. Returns the number of
   * events; 0 after the timeout or a signal. Throws {@link SystemCallError}.
   */
  wait(timeout: number): number {
    let ready = libc.epollWait(this.fd, this.#memory.address, CAPACITY, timeout);
    // The process was stopped and continued: what became ready in the meantime comes before anything else.
    if (ready === -1 && libc.errno() === EINTR) {
      ready = libc.epollWait(this.fd, this.#memory.address, CAPACITY, 0);
    }
    if (ready === -1) throw new SystemCallError('epoll_wait', `fd ${this.fd}`, libc.errno());
    this.#dispatch(ready);
    return ready;
  }

  /** The same in one thread of libuv's pool, with the handlers called on this thread's event loop. */
  waitAsync(timeout: number): Promise<number> {
    return new Promise((resolve, reject) => {
      libc.epollWait.async(this.fd, this.#memory.address, CAPACITY, timeout, (error, ready) => {
        if (error) return reject(error);
        // -1 can only be EINTR here: descriptor, memory and capacity are our own.
        try {
          if (ready > 0) this.#dispatch(ready);
          resolve(Math.max(ready, 0));
        } catch (thrown) {
          reject(thrown);
        }
      });
    });
  }

  #dispatch(ready: number): void {
    const events = this.#events;
    for (let i = 0, word = 0; i < ready; i++, word += EVENT_WORDS) {
      const fd = events[word + DATA_WORD]!;
      // An earlier handler may have removed this descriptor, and its number may have been reused.
      if (this.#registrations[fd] === events[word + DATA_WORD + 1]) this.#handlers[fd]?.(events[word]!);
    }
  }

  protected override release(): void {
    this.#memory.close();
  }
}
