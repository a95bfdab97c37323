import { closeFd } from './fd.ts';

/** A descriptor with one owner, which closes it: by {@link close}, or with `using` at the end of a block. */
export class OwnedFd {
  readonly fd: number;
  #open = true;

  /** Takes ownership of `fd`. */
  constructor(fd: number) {
    this.fd = fd;
  }

  /** False after {@link close}, when the number of `fd` may have been reused. */
  protected get isOpen(): boolean {
    return this.#open;
  }

  /** Called once, before the descriptor is closed; must not throw. */
  protected release(): void {}

  /** Closes the descriptor. Calling it again has no effect. Never throws. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.release();
    closeFd(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
