import { type Check, Pace, type Result, runChecks, type Subject } from './index.ts';

/** A single fault in one of our own implementations, and the check that must notice it. */
export interface Mutant {
  /** The fault, as the table in docs/conformance-kit.md describes it. */
  readonly fault: string;
  /** The identifier of the check that names it. */
  readonly check: string;
}

/** Limit for subjects that are known to be faulty: most of them fail by not answering, in ms. */
const SHORT_LIMIT = 1500;

export const shortPace = () => new Pace(SHORT_LIMIT);

/** Runs one check. */
export async function runOne<Context>(
  subject: Subject<Context>,
  checks: readonly Check<Context>[],
  id: string,
  seed = 1,
): Promise<Result> {
  const check = checks.find((each) => each.id === id);
  if (check === undefined) throw new Error(`there is no check ${id}`);
  const [result] = await runChecks(subject, [check], { seed, report: () => {} });
  return result!;
}

/** A result as a line that says why. */
export function verdict({ check, outcome, reason, failure }: Result): string {
  return [`${check.id} ${outcome}`, reason ?? failure?.message ?? '']
    .filter((part) => part !== '')
    .join(': ');
}

/** Seed of the random numbers of this run, for all tests of a file. Printed, so that a failure can be repeated with SEED=. */
export function runSeed(): number {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 32));
  console.log(`seed ${seed}`);
  return seed;
}
