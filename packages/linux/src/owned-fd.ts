import { closeFd } from './fd.ts';

/** A descriptor with one owner, which closes it: by {@link close}, or with `using` at the end of a block. */
export class OwnedFd {
  readonly fd: number;
  #open = true;

  /** Takes over `fd`. */
  constructor(fd: number) {
    this.fd = fd;
  }

  /** False after {@link close}: `fd` may be the number of another file by then. */
  protected get isOpen(): boolean {
    return this.#open;
  }

  /** Called once, before the descriptor is closed; must not throw. */
  protected release(): void {}

  /** Closes it. Doing it again changes nothing. Never throws. */
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
