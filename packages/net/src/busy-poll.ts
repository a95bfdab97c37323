/** Weight of each new wait in the moving average. */
const WEIGHT = 1 / 8;
/**
 * Polling pays off if waits take up to this multiple of the limit on average: they are long because both sides sleep, and
 * get shorter when neither does.
 */
const WORTHWHILE = 4;

/**
 * Decides whether to keep polling for a while before sleeping: only if recent waits were short, on average, compared to
 * the time that polling may take. Sleeping and being woken costs a system call on both sides, and scheduling latency.
 */
export class BusyPoll {
  readonly #limit: number;
  readonly #now: () => number;
  #average: number;
  #idleSince = 0;

  /** `limit` in µs; 0 disables polling. `now` is a clock in ms, never 0. */
  constructor(limit: number, now = () => performance.now()) {
    this.#limit = limit / 1000;
    this.#now = now;
    // Assume long waits until some have been short.
    this.#average = 2 * WORTHWHILE * this.#limit;
  }

  /** There was work. */
  worked(): void {
    if (this.#idleSince === 0) return;
    // The value is capped, so that a single long wait does not dominate the average for long.
    const waited = Math.min(this.#now() - this.#idleSince, 2 * WORTHWHILE * this.#limit);
    this.#average += (waited - this.#average) * WEIGHT;
    this.#idleSince = 0;
  }

  /** There is no work. Returns whether to poll again rather than sleep. */
  lookAgain(): boolean {
    if (this.#limit === 0) return false;
    const now = this.#now();
    if (this.#idleSince === 0) this.#idleSince = now;
    return this.#average < WORTHWHILE * this.#limit && now - this.#idleSince < this.#limit;
  }
}
