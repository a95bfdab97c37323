import { rmSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { cpu } from './cpu.ts';
import { latency } from './latency.ts';
import { describeMachine, machineText } from './machine.ts';
import { micro } from './micro.ts';
import type { Part } from './part.ts';
import { Recorder } from './recorder.ts';
import { finishResult, RESULTS_DIRECTORY, writeResult } from './results.ts';
import { rings } from './rings.ts';
import { tap } from './tap.ts';
import { vm } from './vm.ts';

const PARTS: readonly Part[] = [rings, tap, latency, cpu, micro, vm];
const DEFAULT_ROUNDS = '5';

const USAGE = `Usage: npm run bench -- [${PARTS.map(({ name }) => name).join('] [')}] [--rounds N] [--output DIR] [--no-save]
Without a part, all of them, for about half an hour. All subjects take turns; docs/performance.md describes them.
What this machine lacks something for is left out, with a line that says why.
  --rounds N    how often each figure is measured (default ${DEFAULT_ROUNDS})
  --output DIR  where <part>.json goes (default bench/results)
  --no-save     print only
Figures are in <part>.json.unfinished until the part is complete. "npm run performance" makes docs/performance.md, and
the tables in README.md, out of bench/results.
Exit codes: 0 success, 1 if a part could not be measured or something failed, 2 mistake in the arguments.
`;

class UsageError extends Error {}

async function main(signal: AbortSignal): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    allowNegative: true,
    options: {
      rounds: { type: 'string', default: DEFAULT_ROUNDS },
      output: { type: 'string', default: RESULTS_DIRECTORY },
      save: { type: 'boolean', default: true },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const rounds = Number(values.rounds);
  if (!(rounds >= 1 && Number.isInteger(rounds)))
    throw new UsageError(`--rounds ${values.rounds}: must be 1 or more`);
  for (const name of positionals) {
    if (!PARTS.some((part) => part.name === name))
      throw new UsageError(`no part of the benchmarks is called ${name}`);
  }
  const chosen = PARTS.filter(({ name }) => positionals.length === 0 || positionals.includes(name));
  const succeeded: boolean[] = [];
  for (const part of chosen) {
    const missing = part.missing();
    if (missing === null) {
      succeeded.push(await measure(part, { rounds, signal, output: values.save ? values.output : null }));
      continue;
    }
    process.stderr.write(`bench: the part ${part.name} cannot be measured here. ${missing}\n`);
    // With all parts asked for, this one is left out like a column of a part.
    if (positionals.length > 0) succeeded.push(false);
  }
  return succeeded.length > 0 && succeeded.every(Boolean) ? 0 : 1;
}

interface MeasureOptions {
  readonly rounds: number;
  readonly signal: AbortSignal;
  /** Directory for the result; null: print only. */
  readonly output: string | null;
}

/** Measures a part and keeps its result. Returns whether nothing failed and there is a figure. */
async function measure(part: Part, { rounds, signal, output }: MeasureOptions): Promise<boolean> {
  const { name, settings, title } = part;
  const date = new Date().toISOString();
  const machine = await describeMachine();
  console.log(`${title}, median (minimum to maximum) of ${rounds} rounds; ${machineText(machine)}`);
  const command = `npm run bench -- ${name} --rounds ${rounds}`;
  let unfinished: string | null = null;
  const recorder = new Recorder((findings) => {
    if (output === null) return;
    unfinished = writeResult(output, { part: name, date, command, machine, settings, ...findings });
  });
  // Shows at once if the directory cannot be written to.
  recorder.found([]);
  try {
    await part.run({ rounds, signal, recorder });
    const isEmpty = recorder.findings.measurements.length === 0;
    if (isEmpty) process.stderr.write(`bench: nothing of the part ${name} could be measured\n`);
    else if (unfinished !== null) {
      console.log(`  written to ${finishResult(unfinished)}`);
      unfinished = null;
    }
    return !isEmpty && !recorder.failed;
  } finally {
    if (unfinished !== null) {
      if (recorder.findings.measurements.length === 0) rmSync(unfinished);
      else process.stderr.write(`bench: what was measured until then is in ${unfinished}\n`);
    }
  }
}

const interruption = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interruption.abort());

try {
  process.exitCode = await main(interruption.signal);
} catch (error) {
  const { message, name, code } = error as NodeJS.ErrnoException;
  // A DOMException, such as an AbortError, has a number there.
  const isUsage = error instanceof UsageError || String(code).startsWith('ERR_PARSE_ARGS');
  process.stderr.write(`bench: ${name === 'AbortError' ? 'interrupted' : message}\n`);
  if (isUsage) process.stderr.write(USAGE);
  process.exitCode = isUsage ? 2 : 1;
}
