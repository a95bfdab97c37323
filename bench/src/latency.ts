import { setTimeout as delay } from 'node:timers/promises';
import { missingNetworkPrivilege } from '@ivshmem/linux/network';
import { percentile, tcpTransfer, udpEcho } from '@ivshmem/traffic';
import { alternate, type Reading } from './alternate.ts';
import { type Cable, withCables } from './cable.ts';
import { inC, ours, veth } from './cables/kinds.ts';
import type { Part, PartOptions } from './part.ts';

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
  // Each ends the other, whichever comes to its end or fails first.
  const enough = new AbortController();
  const either = AbortSignal.any([signal, enough.signal]);
  const { from, to, address } = cable;
  const load = { from: from.path, to: to.path, address, seconds: LOAD_SECONDS, signal: either };
  const [flow, echoes] = await Promise.allSettled([
    tcpTransfer(load).finally(() => enough.abort()),
    delay(RISE, null, { signal: either })
      .then(() => echo(cable, ECHOES_UNDER_LOAD, 'under load', either))
      .finally(() => enough.abort()),
  ]);
  if (flow.status === 'rejected' && flow.reason.name !== 'AbortError') throw flow.reason;
  if (echoes.status === 'rejected') throw echoes.reason;
  return echoes.value;
}

async function run(options: PartOptions): Promise<void> {
  const { signal } = options;
  await withCables(KINDS, options, async (subjects) => {
    const idle = (cable: Cable) => echo(cable, ECHOES, 'idle', signal);
    await alternate({ title: 'UDP echo, idle', subjects, measure: idle }, options);
    const underLoad = (cable: Cable) => echoUnderLoad(cable, signal);
    await alternate({ title: 'UDP echo, under load', subjects, measure: underLoad }, options);
  });
}

/** Round trips between two processes. */
export const latency: Part = {
  name: 'latency',
  title: 'Latency',
  missing: missingNetworkPrivilege,
  settings: { echoes: ECHOES, echoesUnderLoad: ECHOES_UNDER_LOAD, frameBytes: 64 },
  run,
};
