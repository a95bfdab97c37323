import { parseArgs } from 'node:util';
import { missingNetworkPrivilege } from '@ivshmem/linux';
import { benchCpu, cpuSettings } from './cpu.ts';
import { benchHostServer, hostServerSettings } from './host-server.ts';
import { benchLatency, latencySettings } from './latency.ts';
import { describeMachine, machineText } from './machine.ts';
import { benchMicro, microSettings } from './micro.ts';
import { type Measurement, type PartResult, RESULTS_DIRECTORY, writeResult } from './results.ts';
import { benchRings } from './rings.ts';
import { benchTap, tapSettings } from './tap.ts';

interface Part {
  readonly title: string;
  readonly settings: PartResult['settings'];
  /** Makes network namespaces and TAP interfaces. */
  readonly needsNetwork?: boolean;
  readonly run: (rounds: number, signal: AbortSignal) => Promise<Measurement[]>;
}

const PARTS: Readonly<Record<string, Part>> = {
  rings: { title: 'Rings alone', settings: {}, run: benchRings },
  tap: { title: 'TAP to TAP', settings: tapSettings, needsNetwork: true, run: benchTap },
  latency: { title: 'Round trips', settings: latencySettings, needsNetwork: true, run: benchLatency },
  cpu: { title: 'CPU time', settings: cpuSettings, needsNetwork: true, run: benchCpu },
  micro: { title: 'Single operations', settings: microSettings, run: benchMicro },
  'host-server': { title: 'Host server', settings: hostServerSettings, run: benchHostServer },
};

const USAGE = `Usage: npm run bench -- [PART…] [--rounds N] [--output DIRECTORY | --no-save]

Measures on this machine, beside what else is installed, and writes a file for each part, which "npm run performance"
makes the tables and plots of the documentation of.

Parts (all of them unless told):
  rings        the rings alone, million frames/s
  tap          TAP to TAP: UDP frames/s, and TCP at several MTUs
  latency      round trips of a UDP echo, idle and beside a TCP flow
  cpu          CPU time of a frame at several rates, and of an idle link
  micro        single operations, ns
  host-server  joins, and memory of a peer

Options:
  --rounds N          how often each figure is measured, 1 to 1000 (default 5)
  --output DIRECTORY  where to write <part>.json (default: bench/results, where they are committed)
  --no-save           only print
  -h, --help

Examples:
  npm run bench -- rings micro
  npm run bench -- tap --rounds 1 --no-save
`;

async function main(signal: AbortSignal): Promise<number> {
  const { values, positionals } = parse();
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const rounds = Number(values.rounds);
  const unknown = positionals.find((name) => !Object.hasOwn(PARTS, name));
  if (unknown !== undefined) throw new TypeError(`no part of the benchmarks is called ${unknown}`);
  if (!/^[1-9]\d{0,3}$/.test(values.rounds) || rounds > 1000) {
    throw new TypeError(`--rounds ${values.rounds}: must be 1 to 1000`);
  }
  if (values['no-save'] && values.output !== undefined) {
    throw new TypeError('--output and --no-save exclude each other: give one of them');
  }
  const names = positionals.length > 0 ? positionals : Object.keys(PARTS);
  const networked = names.filter((name) => PARTS[name]!.needsNetwork);
  const missing = networked.length > 0 ? missingNetworkPrivilege() : null;
  if (missing !== null) throw new Error(`${networked.join(', ')} can't be measured here. ${missing}`);
  for (const name of names) {
    const { title, settings, run } = PARTS[name]!;
    signal.throwIfAborted();
    const date = new Date().toISOString();
    const machine = await describeMachine();
    console.log(`${title} (${name}): median (minimum to maximum) of ${rounds} rounds`);
    console.log(`  ${machineText(machine)}`);
    const measurements = await run(rounds, signal);
    if (values['no-save']) continue;
    const command = `npm run bench -- ${name} --rounds ${rounds}`;
    const result = { part: name, date, command, machine, settings: { rounds, ...settings }, measurements };
    console.log(`  written to ${writeResult(values.output ?? RESULTS_DIRECTORY, result)}`);
  }
  return 0;
}

function parse() {
  return parseArgs({
    allowPositionals: true,
    options: {
      rounds: { type: 'string', default: '5' },
      output: { type: 'string' },
      'no-save': { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
}

const interrupted = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => {
    if (interrupted.signal.aborted) process.exit(1);
    interrupted.abort(new Error(`ended by ${name}`));
  });
}

try {
  process.exitCode = await main(interrupted.signal);
} catch (error) {
  // An interrupted wait fails with an error of its own.
  const { message } = (interrupted.signal.aborted ? interrupted.signal.reason : error) as Error;
  process.stderr.write(`bench: ${message}\n`);
  if (error instanceof TypeError) process.stderr.write(USAGE);
  process.exitCode = error instanceof TypeError ? 2 : 1;
}
