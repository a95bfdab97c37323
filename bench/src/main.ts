import { parseArgs } from 'node:util';
import { comparisonLines } from './alternate.ts';
import { cpu } from './cpu.ts';
import { latency } from './latency.ts';
import { describeMachine, machineText } from './machine.ts';
import { micro } from './micro.ts';
import type { Part } from './part.ts';
import { RESULTS_DIRECTORY, writeResult } from './results.ts';
import { rings } from './rings.ts';
import { tap } from './tap.ts';
import { vm } from './vm.ts';

const PARTS: readonly Part[] = [rings, tap, latency, cpu, micro, vm];
const DEFAULT_ROUNDS = '5';

const USAGE = `Usage: npm run bench -- [${PARTS.map(({ name }) => name).join('] [')}] [--rounds N] [--output DIR] [--no-save]
Without a part, all of them, for about half an hour. All subjects take turns; what they are, docs/performance.md tells.
  --rounds N    how often each figure is measured (default ${DEFAULT_ROUNDS})
  --output DIR  where <part>.json goes (default bench/results)
  --no-save     print only
"npm run performance" makes docs/performance.md, and the tables in README.md, out of bench/results.
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
  for (const part of PARTS) {
    if (positionals.length > 0 && !positionals.includes(part.name)) continue;
    const missing = part.missing();
    if (missing !== null) throw new Error(`the part ${part.name} can't be measured here. ${missing}`);
    const date = new Date().toISOString();
    const machine = await describeMachine();
    console.log(`${part.title}, median (minimum to maximum) of ${rounds} rounds; ${machineText(machine)}`);
    const measurements = await part.run({ rounds, signal });
    for (const line of comparisonLines(measurements)) console.log(line);
    if (!values.save) continue;
    const command = `npm run bench -- ${part.name} --rounds ${rounds}`;
    const { name, settings } = part;
    const path = writeResult(values.output, { part: name, date, command, machine, settings, measurements });
    console.log(`  written to ${path}`);
  }
  return 0;
}

const interruption = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interruption.abort());

try {
  process.exitCode = await main(interruption.signal);
} catch (error) {
  const { message, name, code } = error as NodeJS.ErrnoException;
  const isUsage = error instanceof UsageError || code?.startsWith('ERR_PARSE_ARGS') === true;
  process.stderr.write(`bench: ${name === 'AbortError' ? 'interrupted' : message}\n`);
  if (isUsage) process.stderr.write(USAGE);
  process.exitCode = isUsage ? 2 : 1;
}
