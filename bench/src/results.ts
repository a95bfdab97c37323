import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Machine } from './machine.ts';

/** One thing that was measured, of one subject, round by round. */
export interface Measurement {
  /** `64-byte frames` */
  readonly what: string;
  /** `ivshmem`, or what it is compared with. */
  readonly subject: string;
  readonly unit: string;
  /** By round: what was measured in the same round of other subjects stands at the same place. */
  readonly values: readonly number[];
}

/** What one run of a part has found: the contents of `<part>.json`. */
export interface PartResult {
  readonly part: string;
  /** When it was begun, ISO 8601. */
  readonly date: string;
  /** What repeats it. */
  readonly command: string;
  readonly machine: Machine;
  /** Durations, sizes and counts that the figures depend on. */
  readonly settings: Readonly<Record<string, string | number | readonly number[]>>;
  readonly measurements: readonly Measurement[];
  /** What could not be measured on that machine, a line each, with the reason. */
  readonly omitted?: readonly string[];
}

/** By name of the part. */
export type Results = ReadonlyMap<string, PartResult>;

const UNFINISHED = '.unfinished';

/** The committed ones. */
export const RESULTS_DIRECTORY = fileURLToPath(new URL('../results', import.meta.url));

/**
 * Writes what a part has found so far to `<part>.json.unfinished`. Returns its path: {@link finishResult} puts it in the
 * place of the result of an earlier run.
 */
export function writeResult(directory: string, result: PartResult): string {
  mkdirSync(directory, { recursive: true });
  const path = join(directory, `${result.part}.json${UNFINISHED}`);
  // The values of a measurement on one line: a diff shows one line for each.
  const text = JSON.stringify(result, null, 2).replace(/\[\s+([-\d.eE+,\s]+?)\s+\]/g, (_whole, numbers) => {
    return `[${numbers.split(/,\s+/).join(', ')}]`;
  });
  writeFileSync(path, `${text}\n`);
  return path;
}

/** Makes `<part>.json` out of what was written last. Returns its path. */
export function finishResult(unfinished: string): string {
  const path = unfinished.slice(0, -UNFINISHED.length);
  renameSync(unfinished, path);
  return path;
}

/** Reads all there are; none if there is no such directory. Throws Error if a file is no result. */
export function readResults(directory = RESULTS_DIRECTORY): Results {
  const results = new Map<string, PartResult>();
  for (const name of list(directory)) {
    const path = join(directory, name);
    const result = parse(path);
    if (!isResult(result) || `${result.part}.json` !== name) {
      throw new Error(
        `${path} is no result of a benchmark: delete it, or measure again with "npm run bench"`,
      );
    }
    results.set(result.part, result);
  }
  return results;
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory).filter((name) => name.endsWith('.json'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

function parse(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

function isResult(value: unknown): value is PartResult {
  if (typeof value !== 'object' || value === null) return false;
  const { part, date, command, machine, settings, measurements, omitted = [] } = value as Partial<PartResult>;
  return (
    [part, date, command].every((text) => typeof text === 'string') &&
    typeof machine === 'object' &&
    typeof settings === 'object' &&
    Array.isArray(measurements) &&
    measurements.every(isMeasurement) &&
    Array.isArray(omitted) &&
    omitted.every((line) => typeof line === 'string')
  );
}

function isMeasurement(value: Partial<Measurement> | null): boolean {
  const { what, subject, unit, values } = value ?? {};
  return (
    [what, subject, unit].every((text) => typeof text === 'string') &&
    Array.isArray(values) &&
    values.length > 0 &&
    values.every((number) => Number.isFinite(number))
  );
}
