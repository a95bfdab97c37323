import type { CheckInfo, Result } from '../runner.ts';

/** Results as text, as they come. Texts end with a line break, or are empty. */
export interface Report {
  begin(checks: readonly CheckInfo[], seed: number): string;
  result(result: Result): string;
  end(results: readonly Result[]): string;
}

export interface Summary {
  readonly passed: number;
  readonly failedMust: number;
  readonly failedShould: number;
  readonly skipped: number;
}

export function summarise(results: readonly Result[]): Summary {
  const count = (outcome: Result['outcome'], level?: string) =>
    results.filter(
      (result) => result.outcome === outcome && (level ?? result.check.level) === result.check.level,
    ).length;
  return {
    passed: count('passed'),
    failedMust: count('failed', 'MUST'),
    failedShould: count('failed', 'SHOULD'),
    skipped: count('skipped'),
  };
}
