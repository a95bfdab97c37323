import { setTimeout as delay } from 'node:timers/promises';
import type { Netns } from '@ivshmem/linux';
import { ping } from '@ivshmem/traffic';

/** Two network namespaces and what connects them; the second one has the address `address`. */
export interface Cable {
  readonly name: string;
  readonly from: Netns;
  readonly to: Netns;
  readonly address: string;
  /** Processes that carry the frames, for their CPU time; none where the kernel does. */
  readonly pids: readonly number[];
  /** In bytes. Rejects with RangeError, and changes nothing, where it can't have that. */
  setMtu(mtu: number): Promise<void>;
  close(): Promise<void>;
}

/** A cable that may be laid. */
export interface CableKind {
  readonly name: string;
  /** What this machine lacks for it, in one line with the remedy; null where it lacks nothing. */
  missing(): string | null;
  /** Lays it, with an MTU of 1500. */
  open(): Promise<Cable>;
}

/** MTU of a new cable, in bytes. */
export const FIRST_MTU = 1500;

/**
 * Lays a cable out of parts that are given back in reverse order when it is closed, or when `build` fails: for each part
 * it tells `finallyDo` how.
 */
export async function assembleCable(
  build: (finallyDo: (cleanup: () => unknown) => void) => Promise<Omit<Cable, 'close'>>,
): Promise<Cable> {
  const cleanups: (() => unknown)[] = [];
  const close = async () => {
    while (cleanups.length > 0) await cleanups.pop()!();
  };
  try {
    return Object.assign(await build((cleanup) => cleanups.push(cleanup)), { close });
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * Lays those that this machine can lay; says of each other one, in one line, why not. Calls `measure` with them, and
 * takes them away whatever happens.
 */
export async function withCables<T>(
  kinds: readonly CableKind[],
  signal: AbortSignal,
  measure: (cables: readonly Cable[]) => Promise<T>,
): Promise<T> {
  const cables: Cable[] = [];
  try {
    for (const { name, missing, open } of kinds) {
      signal.throwIfAborted();
      const why = missing();
      if (why !== null) {
        console.log(`  Without ${name}: ${why}`);
        continue;
      }
      cables.push(await open());
    }
    signal.throwIfAborted();
    return await measure(cables);
  } finally {
    for (const cable of cables.reverse()) await cable.close();
  }
}

/** Throws RangeError where a cable can't have an MTU, in bytes. */
export function checkMtu(name: string, mtu: number, most: number): void {
  if (mtu > most) throw new RangeError(`${name}: MTU ${mtu}: must be ${most} at most`);
}

/** Those cables that can have this MTU, and have it now. */
export async function withMtu(cables: readonly Cable[], mtu: number): Promise<Cable[]> {
  const able: Cable[] = [];
  for (const cable of cables) {
    try {
      await cable.setMtu(mtu);
      able.push(cable);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
    }
  }
  return able;
}

/** Resolves when an echo request was answered. Throws Error where none is within ten seconds. */
export async function untilPassing(from: Netns, address: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!(await isAnswered(from, address))) {
    if (performance.now() > deadline) throw new Error(`nothing passes to ${address}`);
    await delay(20);
  }
}

async function isAnswered(from: Netns, address: string): Promise<boolean> {
  try {
    const { received } = await ping({ netns: from.path, to: address, count: 1, timeoutMs: 200 });
    return received > 0;
  } catch (error) {
    // Programs take their interfaces down and up again when they start.
    if (['ENETUNREACH', 'ENETDOWN'].includes((error as NodeJS.ErrnoException).code!)) return false;
    throw error;
  }
}
