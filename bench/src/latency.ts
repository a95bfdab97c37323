import { setTimeout as delay } from 'node:timers/promises';
import { missingNetworkPrivilege } from '@ivshmem/linux';
import { percentile, tcpTransfer, udpEcho } from '@ivshmem/traffic';
import { alternate, type Reading } from './alternate.ts';
import { type Cable, withCables } from './cable.ts';
import { inC, ours, veth } from './cables/kinds.ts';
import type { Part, PartOptions } from './part.ts';
import type { Measurement } from './results.ts';

/** Echoes of one round, and the bytes that make frames of 64 bytes. */
const ECHOES = 3000;
const ECHOES_UNDER_LOAD = 1000;
const PAYLOAD = 22;
const PERCENTILES = [50, 99, 99.9];
/** Until a TCP flow has its speed, in ms. */
const RISE = 200;
const LOAD_SECONDS = 600;

const NO_BUSY_POLL = { busyPoll: 0 };
const KINDS = [
  ours(),
  inC(),
  ours('ivshmem, sleeping', NO_BUSY_POLL),
  inC('C, sleeping', NO_BUSY_POLL),
  veth,
];

async function echo(
  { from, to, address }: Cable,
  count: number,
  when: string,
  signal: AbortSignal,
): Promise<Reading[]> {
  const run = { client: from.path, server: to.path, address, count, size: PAYLOAD, signal };
  const { rttsMicroseconds } = await udpEcho(run);
  return PERCENTILES.map((p) => ({
    what: `UDP echo, ${when}, p${p}`,
    unit: 'µs',
    value: percentile(rttsMicroseconds, p),
  }));
}

/** Beside a TCP flow in the same direction as the questions. */
async function echoUnderLoad(cable: Cable, signal: AbortSignal): Promise<Reading[]> {
  const enough = new AbortController();
  const { from, to, address } = cable;
  const flow = tcpTransfer({
    from: from.path,
    to: to.path,
    address,
    seconds: LOAD_SECONDS,
    signal: AbortSignal.any([signal, enough.signal]),
  });
  const ended = flow.catch((error: Error) => {
    if (error.name !== 'AbortError') throw error;
  });
  const echoing = delay(RISE, null, { signal }).then(() =>
    echo(cable, ECHOES_UNDER_LOAD, 'under load', signal),
  );
  const readings = await echoing.finally(() => enough.abort());
  await ended;
  return readings;
}

async function run({ rounds, signal }: PartOptions): Promise<Measurement[]> {
  return await withCables(KINDS, signal, async (cables) => [
    ...(await alternate(cables, rounds, (cable) => echo(cable, ECHOES, 'idle', signal))),
    ...(await alternate(cables, rounds, (cable) => echoUnderLoad(cable, signal))),
  ]);
}

/** Round trips between two processes. */
export const latency: Part = {
  name: 'latency',
  title: 'Latency',
  missing: missingNetworkPrivilege,
  settings: { echoes: ECHOES, echoesUnderLoad: ECHOES_UNDER_LOAD, frameBytes: 64 },
  run,
};
