import { closeFd } from '@ivshmem/linux';
import { signalEventFd } from '@ivshmem/linux/wait';

/** The MSI-X vectors of a device, and the eventfds that a VMM has bound to them, which it owns. */
export class InterruptVectors {
  /** How many vectors the device has. */
  readonly count: number;
  readonly #fds: (number | undefined)[] = [];

  constructor(count: number) {
    this.count = count;
  }

  /** Whether the VMM has bound an eventfd to `vector`. */
  isBound(vector: number): boolean {
    return this.#fds[vector] !== undefined;
  }

  /** Takes ownership of a vector's new eventfd, which replaces the previous one; null for none. */
  bind(vector: number, fd: number | null): void {
    const old = this.#fds[vector];
    this.#fds[vector] = fd ?? undefined;
    if (old !== undefined) closeFd(old);
  }

  /** Interrupts the guest. False if the vector is not bound. */
  signal(vector: number): boolean {
    const fd = this.#fds[vector];
    return fd !== undefined && signalEventFd(fd);
  }

  /** Removes all bindings, and closes their eventfds. */
  clear(): void {
    for (const fd of this.#fds) if (fd !== undefined) closeFd(fd);
    this.#fds.length = 0;
  }
}
