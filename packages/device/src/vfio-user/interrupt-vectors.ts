import { closeFd } from '@ivshmem/linux';
import { signalEventFd } from '@ivshmem/linux/wait';
import type { KeptEventFds } from './kept-eventfds.ts';

/** The MSI-X vectors of a device, and the eventfds that a VMM has bound to them, which it owns. */
export class InterruptVectors {
  /** How many vectors the device has. */
  readonly count: number;
  readonly #fds: (number | undefined)[];
  readonly #kept: KeptEventFds | undefined;

  /** With `kept`, a later process can restore the bindings. `fds` are those that an earlier one had. */
  constructor(count: number, kept?: KeptEventFds, fds: (number | undefined)[] = []) {
    this.count = count;
    this.#kept = kept;
    this.#fds = fds;
  }

  /** Whether the VMM has bound an eventfd to `vector`. */
  isBound(vector: number): boolean {
    return this.#fds[vector] !== undefined;
  }

  /** Takes ownership of a vector's new eventfd, which replaces the previous one; null for none. */
  bind(vector: number, fd: number | null): void {
    const old = this.#fds[vector];
    this.#fds[vector] = fd ?? undefined;
    this.#kept?.bind(vector, fd);
    if (old !== undefined) closeFd(old);
  }

  /** Interrupts the guest. False if the vector is not bound. */
  signal(vector: number): boolean {
    const fd = this.#fds[vector];
    return fd !== undefined && signalEventFd(fd);
  }

  /** Removes all bindings, and closes their eventfds. */
  clear(): void {
    for (let vector = 0; vector < this.#fds.length; vector++) {
      if (this.#fds[vector] !== undefined) this.bind(vector, null);
    }
    this.#fds.length = 0;
  }

  /** Closes the eventfds of this process; a later one restores the bindings. */
  leave(): void {
    for (const fd of this.#fds) if (fd !== undefined) closeFd(fd);
    this.#fds.length = 0;
  }
}
