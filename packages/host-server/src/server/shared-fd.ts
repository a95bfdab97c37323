import { closeFd } from '@ivshmem/linux';

/**
 * A reference-counted descriptor, closed when the last owner releases it. A peer's eventfd must outlive the peer while
 * messages that carry it are pending.
 */
export class SharedFd {
  readonly fd: number;
  readonly #onClosed: () => void;
  #owners = 1;

  /** Takes ownership of `fd` with one owner. `onClosed` is called once, after it has been closed. */
  constructor(fd: number, onClosed: () => void = () => {}) {
    this.fd = fd;
    this.#onClosed = onClosed;
  }

  /** Adds an owner. */
  share(): this {
    this.#owners++;
    return this;
  }

  /** Removes an owner. Each owner calls this once. */
  release(): void {
    if (--this.#owners > 0) return;
    closeFd(this.fd);
    this.#onClosed();
  }
}
