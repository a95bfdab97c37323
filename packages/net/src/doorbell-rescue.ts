import { clearEventFd, closeFd } from '@ivshmem/linux';

/**
 * Frees a worker that is blocked in a write to a peer's doorbell. A hostile peer can do that: it holds the same
 * eventfds, can take O_NONBLOCK off and bring the counter to its limit. Has descriptors of its own, so that what the
 * worker closes in the meantime does not matter.
 */
export class DoorbellRescue {
  #fds: readonly number[] = [];

  /** Takes over eventfds, instead of those before. */
  adopt(fds: readonly number[]): void {
    this.close();
    this.#fds = fds;
  }

  /** Empties the counters, which lets a blocked write go on. */
  emptyCounters(): void {
    for (const fd of this.#fds) {
      try {
        clearEventFd(fd);
      } catch {
        // What a server hands over as a doorbell need not be an eventfd, and then it can't be helped here.
      }
    }
  }

  close(): void {
    for (const fd of this.#fds) closeFd(fd);
    this.#fds = [];
  }
}
