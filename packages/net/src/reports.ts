import type { LinkStatus, WorkerMessage } from './link-messages.ts';

/** States told between two ticks. A restart of the peer takes fewer than ten. */
const STATES_PER_TICK = 32;
/** Least time between two log lines about violations of the protocol, in ms. */
const VIOLATION_INTERVAL = 10_000;

/**
 * What a worker tells the main thread. A hostile peer can change its state, and violate the protocol, as fast as
 * anyone looks: what it makes happen is told in bounded numbers, and nothing but the numbers is lost.
 */
export class Reports {
  readonly #tell: (message: WorkerMessage) => void;
  readonly #now: () => number;
  #statesLeft = STATES_PER_TICK;
  #withheld: LinkStatus | undefined;
  #lastViolation = Number.NEGATIVE_INFINITY;
  #silentViolations = 0;

  /** `now` is a clock in ms. */
  constructor(tell: (message: WorkerMessage) => void, now = () => performance.now()) {
    this.#tell = tell;
    this.#now = now;
  }

  /** A change of state; the latest of too many is told at the next {@link tick}. */
  state(status: LinkStatus): void {
    if (this.#statesLeft === 0) {
      this.#withheld = status;
      return;
    }
    this.#statesLeft--;
    this.#tell({ type: 'state', status });
  }

  /** To be called with every poll of the handshake. */
  tick(): void {
    this.#statesLeft = STATES_PER_TICK;
    if (this.#withheld === undefined) return;
    const status = this.#withheld;
    this.#withheld = undefined;
    this.state(status);
  }

  /** What the peer did wrong, and what comes of it. */
  violation(text: string, consequence: string): void {
    const now = this.#now();
    if (now - this.#lastViolation < VIOLATION_INTERVAL) {
      this.#silentViolations++;
      return;
    }
    const more =
      this.#silentViolations > 0 ? ` (and did ${this.#silentViolations} times since the last line)` : '';
    this.#lastViolation = now;
    this.#silentViolations = 0;
    this.log(`the peer violates the protocol: ${text}; ${consequence}${more}`);
  }

  log(text: string): void {
    this.#tell({ type: 'log', text });
  }
}
