import { OptionError } from '@ivshmem/linux';
import { type Check, Failure, Skip } from './check.ts';
import type { Journal } from './journal.ts';
import { now, type Pace } from './pace.ts';
import { Random } from './random.ts';

/** A subject that checks can be made of. */
export interface Subject<Context> extends AsyncDisposable {
  readonly pace: Pace;
  readonly journal: Journal;
  /**
   * Brings the subject to the state in which each check begins, and returns what the check needs. `isAfterFailure`: the last
   * check failed and may have left the subject in any state. Throws {@link Skip}, or {@link Failure} if the subject is gone.
   */
  prepare(check: Check<Context>, random: Random, isAfterFailure: boolean): Promise<Context>;
}

/** The outcome of a check. */
export interface Result {
  readonly check: CheckInfo;
  readonly outcome: 'passed' | 'failed' | 'skipped';
  /** Time that it took, in ms. */
  readonly ms: number;
  /** Why it was skipped. */
  readonly reason?: string;
  readonly failure?: Failure;
  /** What the kit had done when it failed, oldest first. */
  readonly sent?: readonly string[];
}

/** What identifies a check and says what it requires. */
export type CheckInfo = Omit<Check<never>, 'run'>;

export interface RunOptions {
  /** Identifiers of checks, or their first parts up to a dot; the subject's name may be omitted. Default: all checks. */
  readonly only?: readonly string[] | undefined;
  /** Seed of the random numbers, 0 … 2^32 - 1. */
  readonly seed: number;
  /** Called with each result. */
  readonly report: (result: Result) => void;
  /** When aborted, the current check is given up, and no further one begins. */
  readonly stop?: AbortSignal;
}

/** The checks whose identifiers are in `only`. Throws OptionError if an entry matches none. */
export function selectChecks<Context>(
  checks: readonly Check<Context>[],
  only?: readonly string[],
): readonly Check<Context>[] {
  if (only === undefined) return checks;
  const matches = (id: string, entry: string) =>
    [id, id.slice(id.indexOf('.') + 1)].some((name) => name === entry || name.startsWith(`${entry}.`));
  for (const entry of only) {
    if (checks.some(({ id }) => matches(id, entry))) continue;
    throw new OptionError('--only', `--only ${entry}: no check has this identifier: --list shows them`);
  }
  return checks.filter(({ id }) => only.some((entry) => matches(id, entry)));
}

/** Runs the checks in order, and reports each. Rejects with errors that are not the subject's fault. */
export async function runChecks<Context>(
  subject: Subject<Context>,
  checks: readonly Check<Context>[],
  { only, seed, report, stop }: RunOptions,
): Promise<Result[]> {
  const results: Result[] = [];
  let isAfterFailure = false;
  for (const check of selectChecks(checks, only)) {
    if (stop?.aborted) break;
    const began = now();
    let result: Result;
    try {
      subject.journal.clear();
      const run = async () =>
        check.run(await subject.prepare(check, new Random(seed, check.id), isAfterFailure));
      if (!(await completes(run(), stop))) break;
      result = { check, outcome: 'passed', ms: now() - began };
    } catch (error) {
      const ms = now() - began;
      if (error instanceof Skip) {
        result = { check, outcome: 'skipped', ms, reason: error.message };
      } else if (error instanceof Failure) {
        result = { check, outcome: 'failed', ms, failure: error, sent: subject.journal.entries };
      } else {
        throw error;
      }
    }
    isAfterFailure = result.outcome === 'failed';
    results.push(result);
    report(result);
  }
  return results;
}

/** Resolves to true with the promise, to false when `stop` is aborted first. */
async function completes(promise: Promise<void>, stop: AbortSignal | undefined): Promise<boolean> {
  if (stop === undefined) return promise.then(() => true);
  let onAbort = () => {};
  const stopped = new Promise<boolean>((resolve) => {
    onAbort = () => resolve(false);
  });
  stop.addEventListener('abort', onAbort);
  try {
    return await Promise.race([promise.then(() => true), stopped]);
  } finally {
    stop.removeEventListener('abort', onAbort);
    // If it was given up, it fails as soon as what it uses is closed.
    promise.catch(() => {});
  }
}

/** Whether a subject with these results conforms: no MUST has failed. */
export function conforms(results: readonly Result[]): boolean {
  return results.every(({ check, outcome }) => outcome !== 'failed' || check.level !== 'MUST');
}
