import { expect, it } from 'vitest';
import { type Check, Failure, Skip } from './check.ts';
import { Journal } from './journal.ts';
import { Pace } from './pace.ts';
import { conforms, runChecks, type Subject, selectChecks } from './runner.ts';

const check = (id: string, run: () => Promise<void>, level: 'MUST' | 'SHOULD' = 'MUST'): Check<object> => ({
  id,
  sentence: 'It works.',
  source: 'a page',
  level,
  run,
});
const passes = async () => {};
const fails = async () => {
  throw new Failure('1', '2');
};

/** A subject that remembers how it was prepared. */
class Nothing implements Subject<object> {
  readonly pace = new Pace();
  readonly journal = new Journal();
  readonly afterFailure: boolean[] = [];
  async prepare(_check: unknown, _random: unknown, isAfterFailure: boolean): Promise<object> {
    this.afterFailure.push(isAfterFailure);
    return {};
  }
  async [Symbol.asyncDispose](): Promise<void> {}
}

it('reports each check in order, and only a failed MUST makes a subject fail', async () => {
  const subject = new Nothing();
  const skips = async () => {
    throw new Skip('no');
  };
  const checks = [check('s.a.1', passes), check('s.a.2', fails, 'SHOULD'), check('s.b.1', skips)];
  const seen: string[] = [];
  const report = ({ check, outcome }: { check: { id: string }; outcome: string }) =>
    seen.push(`${check.id} ${outcome}`);
  const results = await runChecks(subject, checks, { seed: 1, report });
  expect(seen).toEqual(['s.a.1 passed', 's.a.2 failed', 's.b.1 skipped']);
  expect(subject.afterFailure).toEqual([false, false, true]);
  expect(conforms(results)).toBe(true);
  expect(conforms(await runChecks(subject, [check('s.a.1', fails)], { seed: 1, report }))).toBe(false);
});

it('gives up the current check when it is stopped', async () => {
  const stop = new AbortController();
  const waits = () =>
    new Promise<void>(() => {
      stop.abort();
    });
  const results = await runChecks(new Nothing(), [check('s.a', waits), check('s.b', passes)], {
    seed: 1,
    report: () => {},
    stop: stop.signal,
  });
  expect(results).toEqual([]);
});

it('passes on errors that are not the fault of the subject', async () => {
  const breaks = async () => {
    throw new TypeError('broken');
  };
  await expect(
    runChecks(new Nothing(), [check('s.a', breaks)], { seed: 1, report: () => {} }),
  ).rejects.toThrow('broken');
});

it('selects checks by identifier or group, with or without the subject', () => {
  const checks = ['s.a.1', 's.a.2', 's.ab.1'].map((id) => check(id, passes));
  const ids = (...only: string[]) => selectChecks(checks, only).map(({ id }) => id);
  expect(ids('a')).toEqual(['s.a.1', 's.a.2']);
  expect(ids('s.a.2', 'ab')).toEqual(['s.a.2', 's.ab.1']);
  expect(() => ids('a.3')).toThrow('--only a.3: no check has this identifier: --list shows them');
});

it('waits longer for a subject that has answered slowly', () => {
  const pace = new Pace();
  expect([pace.limit, pace.quiet]).toEqual([5000, 60]);
  pace.measured(1000);
  pace.measured(10);
  expect([pace.limit, pace.quiet]).toEqual([40_000, 4000]);
  pace.measured(10_000);
  expect([pace.limit, pace.quiet]).toEqual([120_000, 5000]);
});

it('remembers the last things that it did', () => {
  const journal = new Journal();
  for (let i = 0; i < 30; i++) journal.note(`step ${i}`);
  expect(journal.entries[0]).toBe('… 6 earlier steps');
  expect(journal.entries.at(-1)).toBe('step 29');
  journal.clear();
  expect(journal.entries).toEqual([]);
});
