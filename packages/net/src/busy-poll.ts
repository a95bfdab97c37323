/** How much of the past counts: each wait moves the average by this part. */
const WEIGHT = 1 / 8;
/**
 * Waits of up to so many times the limit make it worth while. They are that long because both sides sleep, and get
 * shorter once both do not.
 */
const WORTHWHILE = 4;

/**
 * Decides whether it pays off to look for more work for a while before going to sleep: as long as the waits of late
 * were short, on average, compared to the time that may be spent on it. Going to sleep and being woken costs both sides a
 * system call, and the time until the scheduler is back.
 */
export class BusyPoll {
  readonly #limit: number;
  readonly #now: () => number;
  #average: number;
  #idleSince = 0;

  /** `limit` in µs; with 0 it never pays off. `now` is a clock in ms, never 0. */
  constructor(limit: number, now = () => performance.now()) {
    this.#limit = limit / 1000;
    this.#now = now;
    // Until waits have shown to be short, they count as long.
    this.#average = 2 * WORTHWHILE * this.#limit;
  }

  /** There was something to do. */
  worked(): void {
    if (this.#idleSince === 0) return;
    // A long wait is cut off, so that a single one is soon forgotten.
    const waited = Math.min(this.#now() - this.#idleSince, 2 * WORTHWHILE * this.#limit);
    this.#average += (waited - this.#average) * WEIGHT;
    this.#idleSince = 0;
  }

  /** There is nothing to do: whether to look again rather than to sleep. */
  lookAgain(): boolean {
    if (this.#limit === 0) return false;
    const now = this.#now();
    if (this.#idleSince === 0) this.#idleSince = now;
    return this.#average < WORTHWHILE * this.#limit && now - this.#idleSince < this.#limit;
  }
}
