/** A process that becomes ready and then runs this long counts as healthy, in ms. */
export const HEALTHY_AFTER = 1000;
/** Delay before the second of several restarts, in ms; the first is immediate. It is doubled up to the last. */
const FIRST_DELAY = 100;
const LAST_DELAY = 5000;

/** One run of a process. */
export interface Run {
  /** For how long it ran after it became ready, in ms; undefined if it did not. */
  readonly readyFor: number | undefined;
}

/** Decides when to start a process again that has ended by a failure. */
export class RestartPolicy {
  readonly #tries: number;
  /** Failures in a row without a healthy run. */
  #failures = 0;

  /** Gives up after this many failures in a row. */
  constructor(tries: number) {
    this.#tries = tries;
  }

  /** Returns after how many ms to start it again, or null to give up. */
  failed({ readyFor }: Run): number | null {
    if (readyFor !== undefined && readyFor >= HEALTHY_AFTER) this.#failures = 0;
    this.#failures++;
    if (this.#failures >= this.#tries) return null;
    return this.#failures === 1 ? 0 : Math.min(FIRST_DELAY * 2 ** (this.#failures - 2), LAST_DELAY);
  }
}
