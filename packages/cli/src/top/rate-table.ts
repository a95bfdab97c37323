import { printable } from '@ivshmem/linux/process';
import { tableLines } from '../output/table.ts';
import { COLUMNS, type Column } from './columns.ts';
import { COLUMN_NAMES, type RateRow } from './rates.ts';

/** Rows as lines of text, after a header. The column that they are sorted by is marked. */
export function rateTable(rows: readonly RateRow[], sorted: Column | null): string[] {
  const header = [
    'LINK',
    'PART',
    'STATE',
    ...COLUMNS.map((column) => `${COLUMN_NAMES[column]}${column === sorted ? '*' : ''}`),
  ];
  return tableLines([
    header,
    ...rows.map((row) =>
      [row.link, row.part, row.state, ...COLUMNS.map((column) => cell(row, column))].map(printable),
    ),
  ]);
}

function cell({ rates, dropsBy }: RateRow, column: Column): string {
  const text = rateText(rates[column]);
  if (column !== 'drops') return text;
  const reasons = Object.entries(dropsBy).map(([reason, rate]) => `${rateText(rate)} ${reason}`);
  return reasons.length === 0 ? text : reasons.join(', ');
}

const PREFIXES = ['', 'k', 'M', 'G', 'T'];

/** At most five characters: 0, 12, 3.45k, 120M; `-` for null. */
export function rateText(rate: number | null): string {
  if (rate === null) return '-';
  let value = rate;
  let prefix = 0;
  while (value >= 999.5 && prefix < PREFIXES.length - 1) {
    value /= 1000;
    prefix++;
  }
  const digits =
    prefix === 0 && (value >= 10 || value === 0) ? 0 : value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)}${PREFIXES[prefix]}`;
}
