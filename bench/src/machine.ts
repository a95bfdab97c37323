import { availableParallelism, cpus, release } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';

const LOOPS = 2;
const LOOP_MS = 1000;

/** Where figures come from. */
export interface Machine {
  readonly cpu: string;
  readonly cpus: number;
  readonly kernel: string;
  readonly node: string;
  /** CPU time that two busy loops got in a second just before, in seconds: less than 2 where a host throttles. */
  readonly busyLoops: number;
}

/** Looks at this machine; takes a second. */
export async function describeMachine(): Promise<Machine> {
  return {
    // Empty where /proc or /sys keeps them secret.
    cpu: cpus()[0]?.model ?? 'unknown processor',
    cpus: availableParallelism(),
    kernel: release(),
    node: process.version,
    busyLoops: Math.round((await busyLoops()) * 100) / 100,
  };
}

/** In one line. */
export function machineText({ cpu, cpus, kernel, node, busyLoops }: Machine): string {
  return `${cpus} × ${cpu}, Linux ${kernel}, Node ${node}; two busy loops got the time of ${busyLoops.toFixed(2)} CPUs`;
}

async function busyLoops(): Promise<number> {
  const workers = Array.from({ length: LOOPS }, () => new Worker('for (;;);', { eval: true }));
  try {
    await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('online', resolve))));
    const usage = process.cpuUsage();
    const start = performance.now();
    await delay(LOOP_MS);
    const { user, system } = process.cpuUsage(usage);
    return (user + system) / 1000 / (performance.now() - start);
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}
