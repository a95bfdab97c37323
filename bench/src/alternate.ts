import type { Measurement } from './results.ts';
import { ratios, show, summarise } from './statistics.ts';

/** What one look at a subject has found. */
export interface Reading {
  readonly what: string;
  readonly unit: string;
  readonly value: number;
}

/**
 * Measures all subjects in turn, `rounds` times, so that what slows the machine down for a while slows all of them down.
 * In the order of the first round: by what was measured, then by subject. Throws Error where a subject was not measured
 * the same way in each round.
 */
export async function alternate<S extends { readonly name: string }>(
  subjects: readonly S[],
  rounds: number,
  measure: (subject: S) => Promise<readonly Reading[]>,
): Promise<Measurement[]> {
  const found = new Map<string, Map<string, { unit: string; values: number[] }>>();
  for (let round = 0; round < rounds; round++) {
    for (const subject of subjects) {
      for (const { what, unit, value } of await measure(subject)) {
        if (!Number.isFinite(value)) throw new Error(`${subject.name}: ${what} is ${value}`);
        const bySubject = found.get(what) ?? new Map<string, { unit: string; values: number[] }>();
        const series = bySubject.get(subject.name) ?? { unit, values: [] };
        series.values.push(value);
        found.set(what, bySubject.set(subject.name, series));
      }
    }
  }
  const measurements = [...found].flatMap(([what, bySubject]) =>
    [...bySubject].map(([subject, { unit, values }]) => ({ what, subject, unit, values })),
  );
  const uneven = measurements.find(({ values }) => values.length !== rounds);
  if (uneven !== undefined) throw new Error(`${uneven.subject}: ${uneven.what} is not there in every round`);
  return measurements;
}

/** The lines of a terminal: each subject's median and spread, and how the first one compares, round by round. */
export function comparisonLines(measurements: readonly Measurement[]): string[] {
  const lines: string[] = [];
  let first: Measurement | undefined;
  for (const measurement of measurements) {
    const { what, subject, unit, values } = measurement;
    if (first?.what !== what) {
      first = measurement;
      lines.push(`  ${what}, ${unit}`);
    }
    const ratio =
      first === measurement || values.includes(0)
        ? ''
        : `${first.subject} is ${show(ratios(first.values, values))} times that`;
    lines.push(`    ${subject.padEnd(26)} ${show(summarise(values)).padEnd(28)} ${ratio}`.trimEnd());
  }
  return lines;
}
