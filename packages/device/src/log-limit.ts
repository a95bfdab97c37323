/** Lines in an interval, whose length is in ms. */
const LINES = 32;
const INTERVAL = 10_000;

/** Keeps a log short, however fast a hostile VMM makes things happen: what is withheld is counted. */
export class LogLimit {
  readonly #write: (text: string) => void;
  readonly #now: () => number;
  #begin = Number.NEGATIVE_INFINITY;
  #lines = 0;

  /** `now` is a clock in ms. */
  constructor(write: (text: string) => void, now = () => performance.now()) {
    this.#write = write;
    this.#now = now;
  }

  /** Writes a line, unless too many were written of late. */
  write(text: string): void {
    const now = this.#now();
    if (now - this.#begin >= INTERVAL) {
      const withheld = this.#lines - LINES;
      this.#begin = now;
      this.#lines = 0;
      if (withheld > 0) this.#write(`${withheld} lines were withheld`);
    }
    if (this.#lines++ < LINES) this.#write(text);
  }
}
