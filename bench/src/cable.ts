import { setTimeout as delay } from 'node:timers/promises';
import type { Netns } from '@ivshmem/linux/network';
import { ping } from '@ivshmem/traffic';
import type { PartOptions } from './part.ts';

/** Two network namespaces and what connects them; the second one has the address `address`. */
export interface Cable {
  readonly name: string;
  readonly from: Netns;
  readonly to: Netns;
  readonly address: string;
  /** Processes that carry the frames, for their CPU time; empty if the kernel does. */
  readonly pids: readonly number[];
  /** In bytes. Rejects with RangeError, and changes nothing, if that is too much for it. */
  setMtu(mtu: number): Promise<void>;
  close(): Promise<void>;
}

/** A cable that may be laid. */
export interface CableKind {
  readonly name: string;
  /** What this machine lacks for it, in one line with the remedy; null if it lacks nothing. */
  missing(): string | null;
  /** Lays it, with an MTU of 1500. */
  open(): Promise<Cable>;
}

/** MTU of a new cable, in bytes. */
export const FIRST_MTU = 1500;

/**
 * Lays a cable out of parts that are released in reverse order when it is closed, or when `build` fails: `build` gives
 * `finallyDo` a function for each part.
 */
export async function assembleCable(
  build: (finallyDo: (cleanup: () => unknown) => void) => Promise<Omit<Cable, 'close'>>,
): Promise<Cable> {
  const cleanups: (() => unknown)[] = [];
  const close = async () => {
    await runAll(cleanups.splice(0).reverse());
  };
  try {
    return Object.assign(await build((cleanup) => cleanups.push(cleanup)), { close });
  } catch (error) {
    await close();
    throw error;
  }
}

/** Calls all of them, one after the other, also if one fails; then throws the first error. */
async function runAll(cleanups: readonly (() => unknown)[]): Promise<void> {
  const errors: unknown[] = [];
  for (const cleanup of cleanups) {
    try {
      await cleanup();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw errors[0];
}

/** Lays the cables that this machine supports, calls `measure` with them, and always removes them. */
export async function withCables(
  kinds: readonly CableKind[],
  { signal, recorder }: PartOptions,
  measure: (cables: readonly Cable[]) => Promise<void>,
): Promise<void> {
  const cables: Cable[] = [];
  try {
    for (const { name, missing, open } of kinds) {
      signal.throwIfAborted();
      const why = missing();
      if (why !== null) {
        recorder.omit(name, why);
        continue;
      }
      try {
        cables.push(await open());
      } catch (error) {
        recorder.fail(name, error);
      }
    }
    signal.throwIfAborted();
    await measure(cables);
  } finally {
    await runAll(cables.reverse().map((cable) => () => cable.close()));
  }
}

/** Throws RangeError if an MTU, in bytes, is too large for a cable. */
export function checkMtu(name: string, mtu: number, most: number): void {
  if (mtu > most) throw new RangeError(`${name}: MTU ${mtu}: must be ${most} at most`);
}

/** Those cables that can have this MTU, and have it now. */
export async function withMtu(
  cables: readonly Cable[],
  mtu: number,
  { signal, recorder }: PartOptions,
): Promise<Cable[]> {
  const able: Cable[] = [];
  for (const cable of cables) {
    try {
      await cable.setMtu(mtu);
      able.push(cable);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof RangeError)) recorder.fail(`${cable.name} at MTU ${mtu}`, error);
    }
  }
  return able;
}

/** Resolves when an echo request is answered; rejects after half a minute. */
export async function untilPassing(from: Netns, address: string): Promise<void> {
  const deadline = performance.now() + 30_000;
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
