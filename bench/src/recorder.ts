import { comparisonLines } from './alternate.ts';
import type { Measurement } from './results.ts';

/** What a part of the benchmarks has found so far. */
export interface Findings {
  readonly measurements: readonly Measurement[];
  /** What could not be measured, a line each, with the reason. */
  readonly omitted: readonly string[];
}

/** Takes what a part finds, comparison by comparison; prints it, and has it kept, at once. */
export class Recorder {
  readonly #measurements: Measurement[] = [];
  readonly #omitted: string[] = [];
  readonly #keep: (findings: Findings) => void;
  /** True once something failed that this machine seemed to have all for. */
  failed = false;

  /** `keep` is called with all findings so far whenever there are more. */
  constructor(keep: (findings: Findings) => void) {
    this.#keep = keep;
  }

  get findings(): Findings {
    return { measurements: this.#measurements, omitted: this.#omitted };
  }

  /** The figures of a comparison. */
  found(measurements: readonly Measurement[]): void {
    this.#measurements.push(...measurements);
    for (const line of comparisonLines(measurements)) console.log(line);
    this.#keep(this.findings);
  }

  /** Leaves out `what`, since this machine lacks something for it. */
  omit(what: string, reason: string): void {
    const line = `${what}: ${reason.split('\n')[0]}`;
    if (this.#omitted.includes(line)) return;
    this.#omitted.push(line);
    console.log(`  Without ${line}`);
    this.#keep(this.findings);
  }

  /** Leaves out `what`, which failed. */
  fail(what: string, error: unknown): void {
    this.failed = true;
    this.omit(what, error instanceof Error ? error.message : String(error));
  }
}
