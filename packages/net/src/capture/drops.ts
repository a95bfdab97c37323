import type { CounterName } from '../counters.ts';

/** Frames that an end has dropped for some reason, and where a capture mentions them. */
interface DropReason {
  readonly counter: CounterName;
  /** Whether the end would have sent them; otherwise it has received them. */
  readonly sending: boolean;
  readonly text: string;
}

/** Source: `counters.ts`. */
const REASONS: readonly DropReason[] = [
  { counter: 'dropsLinkDown', sending: true, text: 'the link was down' },
  { counter: 'dropsOversize', sending: true, text: 'longer than the MTU' },
  { counter: 'dropsRunt', sending: false, text: 'shorter than an Ethernet header' },
  { counter: 'dropsHeader', sending: false, text: 'invalid offload header' },
  { counter: 'dropsRefused', sending: false, text: 'rejected by the interface' },
];

/** Number of counts in the memory that is shared with the thread: for each peer, one for each reason. */
export const DROP_COUNTS = 2 * REASONS.length;

/** Main thread: turns counters of the ends into counts since the capture began. */
export class DropRecorder {
  readonly #counts: Float64Array;
  readonly #before = new Map<number, number>();

  constructor(counts: Float64Array) {
    this.#counts = counts;
  }

  record(peer: 0 | 1, counters: Readonly<Record<string, number>>): void {
    for (const [i, { counter }] of REASONS.entries()) {
      const at = peer * REASONS.length + i;
      const now = counters[counter] ?? 0;
      const before = this.#before.get(at);
      // A process that was started again counts from 0.
      if (before !== undefined) this.#counts[at]! += now >= before ? now - before : now;
      this.#before.set(at, now);
    }
  }
}

/** The capture's thread: says what is new. */
export class DropReader {
  readonly #counts: Float64Array;
  readonly #reported = new Float64Array(DROP_COUNTS);

  constructor(counts: Float64Array) {
    this.#counts = counts;
  }

  /** One text for each reason for which frames of this direction have been dropped since the last call. */
  news(direction: number): string[] {
    return this.#texts(direction, (at) => {
      const news = this.#counts[at]! - this.#reported[at]!;
      this.#reported[at]! += news;
      return news;
    });
  }

  /** The same since the beginning. */
  all(direction: number): string[] {
    return this.#texts(direction, (at) => this.#counts[at]!);
  }

  #texts(direction: number, countAt: (at: number) => number): string[] {
    return REASONS.flatMap(({ sending, text }, i) => {
      const peer = sending ? direction : 1 - direction;
      const count = countAt(peer * REASONS.length + i);
      return count === 0 ? [] : [`peer ${peer} dropped ${count}: ${text}`];
    });
  }
}
