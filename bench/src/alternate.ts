import type { PartOptions } from './part.ts';
import type { Measurement } from './results.ts';
import { ratios, show, summarise } from './statistics.ts';

/** One figure of a subject. */
export interface Reading {
  readonly what: string;
  readonly unit: string;
  readonly value: number;
}

/** What is measured of whom. */
export interface Comparison<S extends { readonly name: string }> {
  /** For the message if it is left out. */
  readonly title: string;
  readonly subjects: readonly S[];
  measure(subject: S): Promise<readonly Reading[]>;
}

/**
 * Measures all subjects in turn, `rounds` times, so that a temporary load on the machine affects all of them.
 * Records the figures in the order of the first round: by what was measured, then by subject. A subject that fails, or
 * is not measured the same way in each round, is left out. Rejects only when the signal is aborted.
 */
export async function alternate<S extends { readonly name: string }>(
  { title, subjects, measure }: Comparison<S>,
  { rounds, signal, recorder }: PartOptions,
): Promise<void> {
  const found = new Map<string, Map<string, Measurement & { readonly values: number[] }>>();
  const remaining = new Set(subjects);
  const leaveOut = (subject: S, error: unknown) => {
    recorder.fail(`${subject.name} in "${title}"`, error);
    remaining.delete(subject);
    for (const bySubject of found.values()) bySubject.delete(subject.name);
  };
  for (let round = 0; round < rounds; round++) {
    for (const subject of remaining) {
      signal.throwIfAborted();
      try {
        for (const { what, unit, value } of await measure(subject)) {
          if (!Number.isFinite(value)) throw new Error(`${what} is ${value}`);
          const bySubject = found.get(what) ?? new Map();
          const series = bySubject.get(subject.name) ?? { what, subject: subject.name, unit, values: [] };
          series.values.push(value);
          found.set(what, bySubject.set(subject.name, series));
        }
      } catch (error) {
        signal.throwIfAborted();
        leaveOut(subject, error);
      }
    }
  }
  for (const subject of remaining) {
    const uneven = [...found.values()].find(
      (bySubject) => (bySubject.get(subject.name)?.values.length ?? rounds) !== rounds,
    );
    if (uneven !== undefined) leaveOut(subject, new Error('a figure is not there in every round'));
  }
  recorder.found([...found.values()].flatMap((bySubject) => [...bySubject.values()]));
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
