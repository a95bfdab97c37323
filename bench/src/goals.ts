import type { Results } from './results.ts';
import { type Figure, ratios, summarise } from './statistics.ts';

/** What a figure should be: the ratio of `subject` to `other` in the same rounds, or its value if there is no other. */
interface Goal {
  readonly part: string;
  readonly what: string;
  readonly subject: string;
  readonly other?: string;
  /** Bounds of the ratio to the other subject or, without one, of the value itself. */
  readonly least?: number;
  readonly most?: number;
}

const rings = (size: number, other: string, least: number): Goal => ({
  part: 'rings',
  what: `${size}-byte frames`,
  subject: 'ivshmem',
  other,
  least,
});
const tap = (what: string, other: string, least: number): Goal => ({
  part: 'tap',
  what,
  subject: 'ivshmem',
  other,
  least,
});

const GOALS: readonly Goal[] = [
  rings(64, 'C, per frame', 1),
  rings(64, 'C, batched', 0.7),
  ...[1514, 9014, 16384].flatMap((size) => [rings(size, 'C, per frame', 1), rings(size, 'C, batched', 1)]),
  tap('UDP, 64-byte frames', 'C', 0.95),
  tap('UDP, 1514-byte frames', 'C', 0.95),
  ...['bbr', 'cubic'].flatMap((control) => [
    tap(`TCP (${control}), MTU 1500`, 'veth', 0.8),
    tap(`TCP (${control}), MTU 16384`, 'veth', 0.6),
    tap(`TCP (${control}), MTU 65521`, 'veth', 1),
  ]),
  { part: 'latency', what: 'UDP echo, idle, p50', subject: 'ivshmem', other: 'C', most: 1.5 },
  {
    part: 'latency',
    what: 'UDP echo, idle, p50',
    subject: 'ivshmem, sleeping',
    other: 'C, sleeping',
    most: 1.2,
  },
  { part: 'cpu', what: 'idle: share of a CPU for each end', subject: 'ivshmem', most: 0.05 },
];

/** A goal and its result. */
export interface Outcome {
  readonly goal: string;
  readonly found: Figure;
  readonly isMet: boolean;
}

/** Those goals that there are results for, judged by the median. */
export function judge(results: Results): Outcome[] {
  return GOALS.flatMap(({ part, what, subject, other, least, most }) => {
    const measurements = results.get(part)?.measurements ?? [];
    const of = (name: string | undefined) =>
      measurements.find((measurement) => measurement.what === what && measurement.subject === name);
    const ours = of(subject);
    const theirs = of(other);
    if (ours === undefined || (other !== undefined && theirs === undefined)) return [];
    const found = theirs === undefined ? summarise(ours.values) : ratios(ours.values, theirs.values);
    const bound = least === undefined ? `at most ${most}` : `at least ${least}`;
    const beside = other === undefined ? ` ${ours.unit}` : ` × ${other}`;
    const isMet = found.median >= (least ?? Number.NEGATIVE_INFINITY) && found.median <= (most ?? Infinity);
    return [{ goal: `${what}: ${subject} ${bound}${beside}`, found, isMet }];
  });
}
