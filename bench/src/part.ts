import type { Recorder } from './recorder.ts';

/** What a part of the benchmarks gets. */
export interface PartOptions {
  /** How often each figure is measured, 1 or more. */
  readonly rounds: number;
  /** Aborted when the benchmarks are to end early. */
  readonly signal: AbortSignal;
  readonly recorder: Recorder;
}

/** A part of the benchmarks: `npm run bench -- <name>`. */
export interface Part {
  readonly name: string;
  /** What is measured, in one line. */
  readonly title: string;
  /** What this machine lacks for all of it, with the remedy; null if it lacks nothing. */
  missing(): string | null;
  /** Durations, sizes and counts that the figures depend on. */
  readonly settings: Readonly<Record<string, string | number | readonly number[]>>;
  /** Measures what can be measured here; rejects only if that makes no sense, or when the signal is aborted. */
  run(options: PartOptions): Promise<void>;
}
