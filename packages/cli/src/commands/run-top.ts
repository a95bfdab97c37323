import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { type FoundProcesses, findProcesses, linksOf } from '@ivshmem/monitor';
import { EXIT_OK } from '../exit.ts';
import { jsonLine } from '../output/json-line.ts';
import { standardOutput } from '../output/standard-output.ts';
import { openStopSignal } from '../stop-signal.ts';
import { COLUMNS, type Column } from '../top/columns.ts';
import { rateTable } from '../top/rate-table.ts';
import { type RateRow, ratesOf, type Sample, sortRates } from '../top/rates.ts';
import { openTerminal } from '../top/terminal.ts';
import type { TopOptions } from './top.ts';

/** Shows rates until it is stopped, or as often as asked for. */
export async function runTop(options: TopOptions): Promise<number> {
  using stopping = openStopSignal(false);
  const controller = new AbortController();
  const stop = () => controller.abort();
  stopping.signal.addEventListener('abort', stop);
  const { signal } = controller;
  if (process.stdout.isTTY && options.json !== true) await onTerminal(options, signal, stop);
  else await asLines(options, signal, stop);
  return EXIT_OK;
}

/** Takes samples at the interval; the second one is the first with rates. */
async function* updates({ interval, count = Number.POSITIVE_INFINITY }: TopOptions, signal: AbortSignal) {
  let before: Sample | null = null;
  for (let left = count; left > 0 && !signal.aborted; ) {
    const found = await findProcesses();
    const now = { time: performance.now(), links: linksOf(found) };
    yield { found, rows: ratesOf(before, now), isFirst: before === null };
    if (before !== null) left--;
    before = now;
    if (left > 0) await delay(interval * 1000, undefined, { signal }).catch(() => {});
  }
}

async function asLines(options: TopOptions, signal: AbortSignal, stop: () => void): Promise<void> {
  const output = standardOutput();
  // Its reader has gone.
  output.once('error', stop);
  for await (const { rows, isFirst } of updates(options, signal)) {
    if (isFirst) continue;
    const sorted = sortRates(rows, options.sort ?? null);
    const text = options.json
      ? jsonLine({ time: new Date().toISOString(), rows: sorted })
      : `${rateTable(sorted, options.sort ?? null).join('\n')}\n\n`;
    if (!output.write(text)) await once(output, 'drain', { signal }).catch(() => {});
  }
}

async function onTerminal(options: TopOptions, signal: AbortSignal, stop: () => void): Promise<void> {
  let sort = options.sort ?? null;
  let latest: { found: FoundProcesses; rows: readonly RateRow[] } | undefined;
  const show = () => {
    if (latest !== undefined) terminal.show(pageOf(latest.found, latest.rows, sort));
  };
  const onKey = (key: string) => {
    if (key === 'q') stop();
    if (key === '<' || key === '>') sort = nextColumn(sort, key === '>' ? 1 : -1);
    show();
  };
  const input = process.stdin.isTTY ? process.stdin : null;
  using terminal = openTerminal(process.stdout, input, { stop, onKey, onResize: show });
  for await (const { found, rows } of updates(options, signal)) {
    latest = { found, rows };
    show();
  }
}

function pageOf(found: FoundProcesses, rows: readonly RateRow[], sort: Column | null): string[] {
  const silent = found.processes.filter(({ problem }) => problem !== null).length;
  const title = [
    `ivshmem top  ${new Date().toLocaleTimeString('en-GB')}`,
    `${found.processes.length} processes`,
    ...(silent > 0 ? [`${silent} do not answer`] : []),
    ...(found.hidden > 0 ? [`${found.hidden} of other users`] : []),
    '< > sort, q quit',
  ].join('  ');
  return [title, '', ...rateTable(sortRates(rows, sort), sort)];
}

/** By link (null), then by each column, around. */
function nextColumn(column: Column | null, step: number): Column | null {
  const all = [null, ...COLUMNS];
  return all.at((all.indexOf(column) + step) % all.length) ?? null;
}
