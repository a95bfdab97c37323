import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

/** What a process holds: a leak shows as growth. */
export interface Holdings {
  readonly fds: number;
  readonly threads: number;
  /** Shared mappings of memfds. */
  readonly shared: number;
  /** Resident memory, in MiB. */
  readonly resident: number;
}

export function holdings(pid: number | 'self'): Holdings {
  const read = (file: string) => readFileSync(`/proc/${pid}/${file}`, 'utf8');
  return {
    fds: readdirSync(`/proc/${pid}/fd`).length,
    threads: readdirSync(`/proc/${pid}/task`).length,
    shared: read('maps').match(/\/memfd:ivshmem/g)?.length ?? 0,
    resident: Number(/^VmRSS:\s*(\d+) kB$/m.exec(read('status'))?.[1]) / 1024,
  };
}

/** The processes, dead ones aside, that were started with a variable in their environment. */
export function processesWith(variable: string): number[] {
  return processIds().filter((pid) => {
    try {
      const isZombie = /^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
      return !isZombie && readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(variable);
    } catch {
      return false;
    }
  });
}

/** The network namespaces, such as `net:[4026532000]`, that a process is in or holds descriptors of. */
export function namespacesOf(pid: number | string): Set<string> {
  const found = new Set<string>();
  const look = (path: string) => {
    try {
      const target = readlinkSync(path);
      if (target.startsWith('net:[')) found.add(target);
    } catch {
      // Closed in the meantime.
    }
  };
  const list = (directory: string) => {
    try {
      return readdirSync(directory);
    } catch {
      return [];
    }
  };
  for (const fd of list(`/proc/${pid}/fd`)) look(`/proc/${pid}/fd/${fd}`);
  for (const task of list(`/proc/${pid}/task`)) look(`/proc/${pid}/task/${task}/ns/net`);
  return found;
}

/** Whether any process keeps a network namespace alive. */
export function isNamespaceAlive(id: string): boolean {
  return processIds().some((pid) => namespacesOf(pid).has(id));
}

function processIds(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Waits for what the kernel does not notify of: checks every 10 ms. Rejects after half a minute. */
export async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not within 30 seconds: ${condition}`);
    await delay(10);
  }
}
