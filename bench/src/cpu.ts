import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { missingNetworkPrivilege } from '@ivshmem/linux/network';
import { udpTransfer } from '@ivshmem/traffic';
import { alternate, type Reading } from './alternate.ts';
import { type Cable, withCables } from './cable.ts';
import { inC, ours } from './cables/kinds.ts';
import type { Part, PartOptions } from './part.ts';

/** Frames offered per second. */
const RATES = [10_000, 100_000, 500_000];
const SECONDS = 2;
const IDLE_SECONDS = 10;
/** Time before a link counts as idle: a new process still compiles code and collects garbage. */
const SETTLE_SECONDS = 40;
const PAYLOAD = 22;

const NO_BUSY_POLL = { busyPoll: 0 };
const KINDS = [ours(), inC(), ours('ivshmem, sleeping', NO_BUSY_POLL), inC('C, sleeping', NO_BUSY_POLL)];

/** What all threads of some processes have had of CPUs, in seconds. Source: schedstat in the kernel's sched-stats.rst. */
function cpuSeconds(pids: readonly number[]): number {
  return pids
    .flatMap((pid) => readdirSync(`/proc/${pid}/task`).map((task) => `/proc/${pid}/task/${task}/schedstat`))
    .reduce((sum, path) => sum + secondsOfThread(path), 0);
}

function secondsOfThread(path: string): number {
  try {
    return Number(readFileSync(path, 'latin1').split(' ')[0]) / 1e9;
  } catch (error) {
    // It has ended since the list was read.
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code!)) return 0;
    throw error;
  }
}

const traffic =
  (rate: number, signal: AbortSignal) =>
  async (cable: Cable): Promise<Reading[]> => {
    const { from, to, address, pids } = cable;
    const run = { from: from.path, to: to.path, address, size: PAYLOAD, seconds: SECONDS, rate, signal };
    const before = cpuSeconds(pids);
    const { received, seconds } = await udpTransfer(run);
    const used = cpuSeconds(pids) - before;
    const offered = `${rate / 1000} thousand frames/s offered`;
    return [
      { what: `${offered}: CPU time of both ends for each`, unit: 'µs', value: (used / received) * 1e6 },
      { what: `${offered}: arrived`, unit: 'thousand/s', value: received / seconds / 1000 },
    ];
  };

const idle =
  (signal: AbortSignal) =>
  async ({ pids }: Cable): Promise<Reading[]> => {
    const before = cpuSeconds(pids);
    await delay(IDLE_SECONDS * 1000, null, { signal });
    const share = (cpuSeconds(pids) - before) / IDLE_SECONDS / pids.length;
    return [{ what: 'idle: share of a CPU for each end', unit: '%', value: share * 100 }];
  };

async function run(options: PartOptions): Promise<void> {
  const { rounds, signal } = options;
  await withCables(KINDS, options, async (subjects) => {
    await delay(SETTLE_SECONDS * 1000, null, { signal });
    // What is idle is so for long enough to be measured less often.
    const fewer = { ...options, rounds: Math.min(rounds, 2) };
    await alternate({ title: 'idle', subjects, measure: idle(signal) }, fewer);
    for (const rate of RATES) {
      const title = `${rate / 1000} thousand frames/s`;
      await alternate({ title, subjects, measure: traffic(rate, signal) }, options);
    }
  });
}

/** What the processes of a link take of the CPUs. */
export const cpu: Part = {
  name: 'cpu',
  title: 'CPU time',
  missing: () =>
    missingNetworkPrivilege() ??
    (existsSync('/proc/self/schedstat')
      ? null
      : 'The kernel keeps no /proc/self/schedstat: it needs CONFIG_SCHED_INFO.'),
  settings: {
    rates: RATES,
    seconds: SECONDS,
    idleSeconds: IDLE_SECONDS,
    settleSeconds: SETTLE_SECONDS,
    frameBytes: 64,
  },
  run,
};
