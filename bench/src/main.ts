import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { missingNetworkPrivilege } from '@ivshmem/linux';
import { DEFAULT_BUSY_POLL } from '@ivshmem/net';
import { benchHostServer } from './host-server.ts';
import { benchMicro } from './micro.ts';
import { benchRings } from './rings.ts';
import type { Figure } from './statistics.ts';
import { benchTap } from './tap.ts';

const USAGE = `Usage: npm run bench -- [rings] [tap] [micro] [host-server] [--rounds N] [--busy-poll µs] [--json FILE]
Without a part, all of them. --rounds: how often each figure is measured (default 5). --json: also write them to FILE.
`;

async function main(): Promise<number> {
  const { values, positionals } = parse();
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const rounds = Number(values.rounds);
  const busyPoll = Number(values['busy-poll']);
  const parts: Record<string, () => Promise<Record<string, Figure>>> = {
    rings: () => benchRings(rounds),
    tap: () => benchTap(rounds, busyPoll),
    micro: () => benchMicro(),
    'host-server': () => benchHostServer(rounds),
  };
  const unknown = positionals.find((name) => !Object.hasOwn(parts, name));
  if (unknown !== undefined) throw new TypeError(`no part of the benchmarks is called ${unknown}`);
  if (!(rounds >= 1 && Number.isInteger(rounds)))
    throw new TypeError(`--rounds ${values.rounds}: must be 1 or more`);
  if (!(busyPoll >= 0)) throw new TypeError(`--busy-poll ${values['busy-poll']}: must be 0 or more`);

  const machine = { cpu: cpus()[0]!.model, cpus: cpus().length, kernel: release(), node: process.version };
  console.log(`${machine.cpus} x ${machine.cpu}, Linux ${machine.kernel}, Node ${machine.node}`);
  const results: Record<string, Record<string, Figure>> = {};
  for (const name of positionals.length > 0 ? positionals : Object.keys(parts)) {
    const missing = name === 'tap' ? missingNetworkPrivilege() : null;
    if (missing !== null) throw new Error(`TAP to TAP can't be measured here. ${missing}`);
    results[name] = await parts[name]!();
  }
  if (values.json !== undefined) {
    mkdirSync(dirname(values.json), { recursive: true });
    writeFileSync(values.json, `${JSON.stringify({ machine, date: new Date(), results }, null, 2)}\n`);
  }
  return 0;
}

function parse() {
  return parseArgs({
    allowPositionals: true,
    options: {
      rounds: { type: 'string', default: '5' },
      'busy-poll': { type: 'string', default: String(DEFAULT_BUSY_POLL) },
      json: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`bench: ${(error as Error).message}\n`);
  if (error instanceof TypeError) process.stderr.write(USAGE);
  process.exitCode = error instanceof TypeError ? 2 : 1;
}
