import { type LinkView, type PartReport, partName } from '@ivshmem/monitor';
import { partStateText } from '../output/part-text.ts';
import type { Column } from './columns.ts';

/** All links at one time. */
export interface Sample {
  /** In ms, of a clock that only goes forward. */
  readonly time: number;
  readonly links: readonly LinkView[];
}

/** What a column shows, per second. */
export const COLUMN_NAMES: Readonly<Record<Column, string>> = {
  rx: 'RX FRAMES/s',
  tx: 'TX FRAMES/s',
  rxBits: 'RX bit/s',
  txBits: 'TX bit/s',
  drops: 'DROPS/s',
  doorbells: 'DOORBELLS/s',
  interrupts: 'IRQS/s',
  wakeups: 'WAKEUPS/s',
};

/** The rates of a part per second; null if it has no such counter, or the counters of one time only. */
export interface RateRow {
  readonly link: string;
  readonly part: string;
  readonly process: string;
  readonly state: string;
  readonly rates: Readonly<Record<Column, number | null>>;
  /** Rates of dropped frames by reason, without those at 0. */
  readonly dropsBy: Readonly<Record<string, number>>;
}

const COUNTERS: Readonly<
  Record<Exclude<Column, 'drops'>, readonly [interfaces: string, devices: string | null, factor?: number]>
> = {
  rx: ['rxFrames', null],
  tx: ['txFrames', null],
  rxBits: ['rxBytes', null, 8],
  txBits: ['txBytes', null, 8],
  doorbells: ['doorbellsSent', 'doorbells'],
  interrupts: ['interrupts', 'interrupts'],
  wakeups: ['wakeups', null],
};

const DROPS: Readonly<Record<string, string>> = {
  dropsLinkDown: 'link-down',
  dropsOversize: 'oversize',
  dropsRunt: 'runt',
  dropsHeader: 'header',
  dropsRefused: 'refused',
};

type Stats = Readonly<Record<string, number>>;

/** One row for each interface and device. */
export function ratesOf(before: Sample | null, now: Sample): RateRow[] {
  const seconds = before === null ? 0 : (now.time - before.time) / 1000;
  const earlier = new Map<string, Stats>();
  for (const { parts } of before?.links ?? []) {
    for (const { process, part } of parts) earlier.set(keyOf(process.name, part), statsOf(part) ?? {});
  }
  return now.links.flatMap(({ name, parts }) =>
    parts.flatMap(({ process, part }) => {
      const stats = statsOf(part);
      if (stats === null) return [];
      const rate = rateOf(stats, earlier.get(keyOf(process.name, part)), seconds);
      const row = { link: name, part: partName(part), process: process.name, state: partStateText(part) };
      return [{ ...row, ...rates(part.kind === 'device', rate) }];
    }),
  );
}

function keyOf(process: string, part: PartReport): string {
  return `${process} ${part.kind} ${partName(part)}`;
}

function statsOf(part: PartReport): Stats | null {
  return part.kind === 'interface' || part.kind === 'device' ? part.stats : null;
}

/** A function from a counter to its rate. A counter that has decreased belongs to a new part. */
function rateOf(now: Stats, before: Stats | undefined, seconds: number): (counter: string) => number | null {
  return (counter) => {
    const [a, b] = [before?.[counter], now[counter]];
    return a === undefined || b === undefined || b < a || seconds <= 0 ? null : (b - a) / seconds;
  };
}

function rates(
  isDevice: boolean,
  rate: (counter: string) => number | null,
): Pick<RateRow, 'rates' | 'dropsBy'> {
  const dropsBy: Record<string, number> = {};
  let drops: number | null = null;
  for (const [counter, reason] of Object.entries(isDevice ? {} : DROPS)) {
    const value = rate(counter);
    if (value === null) continue;
    drops = (drops ?? 0) + value;
    if (value > 0) dropsBy[reason] = value;
  }
  const values = Object.entries(COUNTERS).map(([column, [ofInterface, ofDevice, factor = 1]]) => {
    const counter = isDevice ? ofDevice : ofInterface;
    const value = counter === null ? null : rate(counter);
    return [column, value === null ? null : value * factor] as const;
  });
  return {
    rates: { ...(Object.fromEntries(values) as Record<Exclude<Column, 'drops'>, number | null>), drops },
    dropsBy,
  };
}

/** By a column, the largest first; by link for null, as found. */
export function sortRates(rows: readonly RateRow[], column: Column | null): readonly RateRow[] {
  if (column === null) return rows;
  return rows.toSorted((a, b) => (b.rates[column] ?? -1) - (a.rates[column] ?? -1));
}
