import { Failure } from './check.ts';

/** Bounds of the limits, in ms. */
const SHORTEST_LIMIT = 5000;
const LONGEST_LIMIT = 120_000;
const SHORTEST_QUIET = 60;
const LONGEST_QUIET = 5000;
/** Limits, in multiples of the slowest answer so far. */
const LIMIT_FACTOR = 40;
const QUIET_FACTOR = 4;
/** Rounds that only yield before the waiting begins to sleep. */
const EAGER_ROUNDS = 50;

/** Time limits that follow how fast the subject answers: an emulated one may take a hundred times longer. */
export class Pace {
  readonly #shortest: number;
  #response = 0;

  /** `shortest`: the shortest limit, in ms. */
  constructor(shortest = SHORTEST_LIMIT) {
    this.#shortest = shortest;
  }

  /** A correct answer took this long, in ms. */
  measured(ms: number): void {
    this.#response = Math.max(this.#response, ms);
  }

  /** How long to wait for an answer, in ms. */
  get limit(): number {
    return Math.min(Math.max(this.#shortest, LIMIT_FACTOR * this.#response), LONGEST_LIMIT);
  }

  /** If nothing happens for this long, in ms, the kit assumes that nothing will. */
  get quiet(): number {
    return Math.min(Math.max(SHORTEST_QUIET, QUIET_FACTOR * this.#response), LONGEST_QUIET);
  }
}

export const now = () => performance.now();

/** Resolves after `ms`. */
export function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * Calls `look` until it returns something other than undefined, and resolves to that; to undefined after `limit` ms. An
 * exception that it throws propagates.
 */
export async function poll<T>(limit: number, look: () => T | undefined): Promise<T | undefined> {
  const end = now() + limit;
  for (let round = 0; ; round++) {
    const found = look();
    if (found !== undefined) return found;
    if (now() > end) return undefined;
    if (round < EAGER_ROUNDS) await new Promise((resolve) => setImmediate(resolve));
    else await delay(1);
  }
}

/**
 * The same, with the limit of `pace`, which learns how long it took. Throws {@link Failure} with `expected` after the limit;
 * `came` describes what there is instead.
 */
export async function awaitAnswer<T>(
  pace: Pace,
  look: () => T | undefined,
  expected: string,
  came: () => string,
): Promise<T> {
  const began = now();
  const { limit } = pace;
  const found = await poll(limit, look);
  if (found === undefined) throw new Failure(expected, `${came()}, after ${Math.round(limit)} ms`);
  pace.measured(now() - began);
  return found;
}
