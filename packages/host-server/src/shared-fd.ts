import { closeFd } from '@ivshmem/linux';

/**
 * A descriptor with several owners, closed when the last one releases it: a peer's eventfd must outlive the peer
 * while messages that carry it wait to be sent.
 */
export class SharedFd {
  readonly fd: number;
  #owners = 1;

  /** Takes over `fd`, on behalf of the first owner. */
  constructor(fd: number) {
    this.fd = fd;
  }

  /** Adds an owner. */
  share(): this {
    this.#owners++;
    return this;
  }

  /** To be called once by each owner. */
  release(): void {
    if (--this.#owners === 0) closeFd(this.fd);
  }
}
