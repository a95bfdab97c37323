import type { Measurement } from './results.ts';

/** What a part of the benchmarks is told. */
export interface PartOptions {
  /** How often each figure is measured, 1 or more. */
  readonly rounds: number;
  /** Aborted when the benchmarks are to end early. */
  readonly signal: AbortSignal;
}

/** A part of the benchmarks: `npm run bench -- <name>`. */
export interface Part {
  readonly name: string;
  /** What is measured, in one line. */
  readonly title: string;
  /** What this machine lacks for it, with the remedy; null where it lacks nothing. */
  missing(): string | null;
  /** Durations, sizes and counts that the figures depend on. */
  readonly settings: Readonly<Record<string, string | number | readonly number[]>>;
  run(options: PartOptions): Promise<Measurement[]>;
}
