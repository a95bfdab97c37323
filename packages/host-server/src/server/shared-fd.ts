import { closeFd } from '@ivshmem/linux';

/**
 * A descriptor with several owners, closed when the last one releases it: a peer's eventfd must outlive the peer
 * while messages that carry it wait to be sent.
 */
export class SharedFd {
  readonly fd: number;
  readonly #onClosed: () => void;
  #owners = 1;

  /** Takes over `fd`, on behalf of the first owner. `onClosed` is called once, when it has been closed. */
  constructor(fd: number, onClosed: () => void = () => {}) {
    this.fd = fd;
    this.#onClosed = onClosed;
  }

  /** Adds an owner. */
  share(): this {
    this.#owners++;
    return this;
  }

  /** To be called once by each owner. */
  release(): void {
    if (--this.#owners > 0) return;
    closeFd(this.fd);
    this.#onClosed();
  }
}
