import { setTimeout as delay } from 'node:timers/promises';
import { udpTransfer } from '@ivshmem/traffic';
import { alternate, comparisonLines, type Reading } from './alternate.ts';
import { type Cable, resumed, withCables } from './cable.ts';
import { ivshmem, ivshmemSleeping, memif, socat, vde } from './cables.ts';
import { cpuTime } from './cpu-time.ts';
import type { Measurement } from './results.ts';

/** Payload of a frame of 64 bytes. */
const SIZE = 64 - 14 - 20 - 8;
/** Offered, in frames per second. */
const RATES = [10_000, 100_000, 500_000];
// A veth pair has no process whose time could be looked at.
const CABLES = [ivshmem, ivshmemSleeping, memif, vde, socat];

export const cpuSettings = { frameSize: 64, rates: RATES, seconds: 2, idleSeconds: 10 };

/**
 * CPU time of the processes that carry the frames: for each frame that arrives, at several rates that are offered, and
 * of an idle link. Rejects with the signal's reason when that is aborted.
 */
export function benchCpu(rounds: number, signal: AbortSignal): Promise<Measurement[]> {
  return withCables(CABLES, signal, async (cables) => {
    const measurements = await alternate(cables, rounds, (cable) =>
      resumed(cable, async () => {
        const readings = [await idle(cable, signal)];
        for (const rate of RATES) readings.push(...(await busy(cable, rate, signal)));
        return readings;
      }),
    );
    for (const line of comparisonLines(measurements)) console.log(line);
    return measurements;
  });
}

async function idle({ pids }: Cable, signal: AbortSignal): Promise<Reading> {
  const before = cpuTime(pids);
  const start = process.hrtime.bigint();
  await delay(cpuSettings.idleSeconds * 1000, undefined, { signal });
  const elapsed = Number(process.hrtime.bigint() - start);
  return { what: 'idle', unit: '% of a CPU', value: (100 * (cpuTime(pids) - before)) / elapsed };
}

async function busy(cable: Cable, rate: number, signal: AbortSignal): Promise<Reading[]> {
  const { from, to, address, pids } = cable;
  const { seconds } = cpuSettings;
  const before = cpuTime(pids);
  const options = { from: from.path, to: to.path, address, size: SIZE, rate, seconds, signal };
  const { sent, received } = await udpTransfer(options);
  const used = cpuTime(pids) - before;
  const name = `${rate / 1000} thousand/s`;
  return [
    { what: `${name}: CPU time of a frame`, unit: 'ns', value: used / received },
    // The sender shares the processors: it may not reach the rate.
    { what: `${name}: offered`, unit: 'thousand/s', value: sent / seconds / 1000 },
    { what: `${name}: arrived`, unit: 'thousand/s', value: received / seconds / 1000 },
  ];
}
