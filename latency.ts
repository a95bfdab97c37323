import { percentile, tcpTransfer, udpEcho } from '@ivshmem/traffic';
import { alternate, comparisonLines, type Reading } from './alternate.ts';
import { type Cable, resumed, withCables } from './cable.ts';
import { ivshmem, ivshmemSleeping, veth } from './cables.ts';
import type { Measurement } from './results.ts';

/** Payload of a frame of 64 bytes. */
const SIZE = 64 - 14 - 20 - 8;
const PERCENTILES = [50, 99, 99.9];
/** Longer than any of these transfers goes on, in s. */
const LONG = 600;
const CABLES = [ivshmem, ivshmemSleeping, veth];

export const latencySettings = { frameSize: 64, idleEchoes: 20_000, loadedEchoes: 5000 };

/**
 * Round trips of a UDP echo, one at a time, from process to process: on an idle link, and beside a TCP flow in the same
 * direction. Rejects with the signal's reason when that is aborted.
 */
export function benchLatency(rounds: number, signal: AbortSignal): Promise<Measurement[]> {
  return withCables(CABLES, signal, async (cables) => {
    const measurements = await alternate(cables, rounds, (cable) =>
      resumed(cable, async () => [
        ...(await echo(cable, 'idle', latencySettings.idleEchoes, signal)),
        ...(await besideTcp(cable, signal, () => echo(cable, 'loaded', latencySettings.loadedEchoes, signal))),
      ]),
    );
    for (const line of comparisonLines(measurements)) console.log(line);
    return measurements;
  });
}

async function echo(cable: Cable, state: string, count: number, signal: AbortSignal): Promise<Reading[]> {
  const { from, to, address } = cable;
  const options = { client: from.path, server: to.path, address, count, size: SIZE, signal };
  const { rttsMicroseconds } = await udpEcho(options);
  return PERCENTILES.map((p) => ({ what: `${state}, p${p}`, unit: 'µs', value: percentile(rttsMicroseconds, p) }));
}

/** Calls `measure` while a TCP flow goes over the same cable. */
async function besideTcp<T>(cable: Cable, signal: AbortSignal, measure: () => Promise<T>): Promise<T> {
  const done = new AbortController();
  let flow: Promise<unknown> = Promise.resolve();
  try {
    await new Promise<void>((resolve, reject) => {
      flow = tcpTransfer({
        from: cable.from.path,
        to: cable.to.path,
        address: cable.address,
        seconds: LONG,
        signal: AbortSignal.any([signal, done.signal]),
        onProgress: ({ bytes }) => bytes > 0 && resolve(),
      });
      flow.catch(reject);
    });
    return await measure();
  } finally {
    done.abort();
    await flow.catch(() => {});
  }
}
