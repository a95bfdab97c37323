import { Worker } from 'node:worker_threads';
import { threadError } from '@ivshmem/linux';
import { type Control, createControl, requestStop } from './control.ts';
import type { Outcome, Task } from './worker/tasks.ts';

const PROGRESS_INTERVAL_MS = 100;

export interface RunOptions {
  /** Stops the run within a fraction of a second; the promise is rejected with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

interface RunWorkersOptions extends RunOptions {
  /** Called about ten times a second with {@link Control.counters}. */
  readonly onProgress?: ((counters: Float64Array) => void) | undefined;
}

/** Runs one worker. Resolves when its thread has ended. */
function runWorker(task: Task, control: Control): Promise<Outcome> {
  return new Promise((resolve) => {
    let outcome: Outcome = {
      error: { message: `${task.kind}: the worker ended without a result`, code: undefined },
    };
    const fail = (error: NodeJS.ErrnoException) => {
      outcome = { error: { message: threadError(error).message, code: error.code } };
    };
    let worker: Worker;
    try {
      // From dist, even if this module runs from src, under vitest.
      worker = new Worker(new URL('../dist/worker/main.js', import.meta.url), {
        workerData: { task, memory: control.memory },
        execArgv: [],
      });
    } catch (error) {
      fail(error as NodeJS.ErrnoException);
      resolve(outcome);
      return;
    }
    worker.once('message', (message: Outcome) => {
      outcome = message;
    });
    worker.once('error', fail);
    worker.once('messageerror', fail);
    worker.once('exit', () => resolve(outcome));
  });
}

/**
 * Runs tasks in parallel, each in its own thread, and returns their results when all threads have ended. The first error
 * stops the others and is thrown.
 */
export async function runWorkers(tasks: readonly Task[], options: RunWorkersOptions): Promise<unknown[]> {
  const { signal, onProgress } = options;
  signal?.throwIfAborted();
  const control = createControl();
  const stop = () => requestStop(control);
  signal?.addEventListener('abort', stop, { once: true });
  const timer = onProgress && setInterval(() => onProgress(control.counters), PROGRESS_INTERVAL_MS);
  let failure: Error | undefined;
  try {
    const results = await Promise.all(
      tasks.map(async (task) => {
        const outcome = await runWorker(task, control);
        if ('result' in outcome) return outcome.result;
        failure ??= Object.assign(new Error(outcome.error.message), { code: outcome.error.code });
        stop();
        return null;
      }),
    );
    // An abort causes further errors: when one end stops, the other finds its connection reset.
    signal?.throwIfAborted();
    if (failure !== undefined) throw failure;
    return results;
  } finally {
    clearInterval(timer);
    signal?.removeEventListener('abort', stop);
  }
}
