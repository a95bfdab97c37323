import { closeFd } from '@ivshmem/linux';
import { signalEventFd } from '@ivshmem/linux/wait';

/** The eventfds that a VMM has bound to the vectors of its device. It owns them. */
export class InterruptVectors {
  readonly #fds: (number | undefined)[] = [];

  /** Whether an interrupt on `vector` has somewhere to go. */
  isBound(vector: number): boolean {
    return this.#fds[vector] !== undefined;
  }

  /** Takes over the eventfd of a vector, in place of the one it had; null for none. */
  bind(vector: number, fd: number | null): void {
    const old = this.#fds[vector];
    this.#fds[vector] = fd ?? undefined;
    if (old !== undefined) closeFd(old);
  }

  /** Interrupts the VMM. False where the vector is not bound. */
  signal(vector: number): boolean {
    const fd = this.#fds[vector];
    return fd !== undefined && signalEventFd(fd);
  }

  /** Takes back all bindings. */
  clear(): void {
    for (const fd of this.#fds) if (fd !== undefined) closeFd(fd);
    this.#fds.length = 0;
  }
}
