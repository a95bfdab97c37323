import { once } from 'node:events';

/** Something that runs until it is closed, or cannot go on. */
export interface Running {
  readonly closed: Promise<Error | null>;
  close(): Promise<void>;
}

/**
 * Waits until `stop` is aborted, or something ends by itself; then calls `stopping`, and closes all of it, the last
 * first. Throws why something has ended by itself.
 */
export async function untilEnded(
  running: readonly Running[],
  stop: AbortSignal,
  stopping: () => void,
): Promise<void> {
  try {
    await Promise.race([...running.map(({ closed }) => closed), stop.aborted || once(stop, 'abort')]);
  } finally {
    stopping();
    await closeAll(running);
  }
  for (const { closed } of running) {
    const failure = await closed;
    if (failure !== null) throw failure;
  }
}

/** Closes all, the last first. */
export async function closeAll(running: readonly Running[]): Promise<void> {
  for (const one of running.toReversed()) await one.close();
}
