import { once } from 'node:events';
import { parentPort, Worker, workerData } from 'node:worker_threads';
import { threadError } from '../errors.ts';
import { releaseSignals } from '../wait/doorbell.ts';
import { EventFd } from '../wait/eventfd.ts';
import { type ErrorRecord, errorOf, errorRecord } from './error-record.ts';

/** How long the exit of the process waits for a thread to end, in ms. */
const EXIT_PATIENCE = 5000;

/** What the main thread gives a thread, besides its input. */
interface ThreadData<Input> {
  readonly input: Input;
  readonly stopFd: number;
  /** One of the three below. */
  readonly phase: Int32Array<SharedArrayBuffer>;
}

const STARTING = 0;
const RUNNING = 1;
const OVER = 2;

/** The last message of a thread that has thrown. */
interface Failed {
  readonly type: 'failed';
  readonly error: ErrorRecord;
}

/** A thread that blocks in system calls, as the one that started it sees it. */
export interface BlockingThread {
  /** Resolves when the thread has ended: to null if it was stopped, to the error that it threw otherwise. */
  readonly closed: Promise<Error | null>;
  /** Stops the thread. Resolves when it has ended. */
  close(): Promise<void>;
  /** The same as {@link close}. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Starts a thread that never turns an event loop, see {@link runBlockingThread}. Nothing but its own end can stop
 * such a thread: neither worker.terminate() nor process.exit() gets past a system call that blocks. Hence the eventfd,
 * which it waits for beside all others, and which is also signalled when the process exits.
 *
 * `file` calls {@link runBlockingThread}, `input` is cloned. All messages go to `receive`; the first with the type
 * `upWith` says that the thread is up, which is what the promise waits for. If the thread ends before that, rejects with
 * the error that it threw: class (`SystemCallError`, OptionError, RangeError, TypeError), name and properties such as
 * `code` are kept. An aborted `signal` stops it, and rejects with the signal's reason when it has ended; once the
 * thread is up it has no effect.
 */
export async function startBlockingThread<Message extends { readonly type: string }>(options: {
  readonly file: URL;
  readonly input: unknown;
  readonly upWith: Message['type'];
  readonly receive: (message: Message) => void;
  /** Called before `closed` resolves. */
  readonly ended?: (() => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}): Promise<BlockingThread> {
  const { file, input, upWith, receive, ended, signal } = options;
  signal?.throwIfAborted();
  const stop = new EventFd();
  const phase = new Int32Array(new SharedArrayBuffer(4));
  const data: ThreadData<unknown> = { input, stopFd: stop.fd, phase };
  let worker: Worker;
  try {
    worker = new Worker(file, { workerData: data, execArgv: [] });
  } catch (error) {
    stop.close();
    throw threadError(error as Error);
  }
  const onExit = () => {
    stop.signal();
    // Until it has told its peers.
    if (Atomics.compareExchange(phase, 0, STARTING, OVER) !== RUNNING) return;
    Atomics.wait(phase, 0, RUNNING, EXIT_PATIENCE);
  };
  const askToEnd = () => void stop.signal();
  process.once('exit', onExit);

  let failure: Error | null = null;
  let isUp = false;
  let onUp = () => {};
  const up = new Promise<void>((resolve) => {
    onUp = resolve;
  });
  worker.on('message', (message: Message | Failed) => {
    if (isFailed(message)) {
      failure = errorOf(message.error);
      return;
    }
    receive(message);
    if (message.type !== upWith) return;
    isUp = true;
    onUp();
  });
  worker.on('error', (error) => {
    failure = threadError(error as Error);
  });
  const closed = once(worker, 'exit').then(() => {
    process.off('exit', onExit);
    stop.close();
    ended?.();
    return failure;
  });

  signal?.addEventListener('abort', askToEnd);
  await Promise.race([up, closed]);
  signal?.removeEventListener('abort', askToEnd);
  if (signal?.aborted) {
    await closed;
    signal.throwIfAborted();
  }
  if (!isUp) throw (await closed) ?? new Error('the thread ended without a word');
  const close = async () => {
    askToEnd();
    await closed;
  };
  return { closed, close, [Symbol.asyncDispose]: close };
}

function isFailed(message: { readonly type: string }): message is Failed {
  return message.type === 'failed';
}

/**
 * The other side of {@link startBlockingThread}: to be called by the thread's file, once. `run` returns when `stopFd`
 * is readable; what it throws ends the thread, too, and is its failure. The thread then ends unless something keeps its
 * event loop alive.
 */
export function runBlockingThread<Input, Message extends { readonly type: string }>(
  run: (input: Input, stopFd: number, tell: (message: Message) => void) => void,
): void {
  const { input, stopFd, phase } = workerData as ThreadData<Input>;
  // The process may be about to exit.
  if (Atomics.compareExchange(phase, 0, STARTING, RUNNING) !== STARTING) return;
  const post = (message: Message | Failed) => parentPort!.postMessage(message);
  try {
    run(input, stopFd, post);
  } catch (error) {
    post({ type: 'failed', error: errorRecord(error) });
  } finally {
    releaseSignals();
    Atomics.store(phase, 0, OVER);
    Atomics.notify(phase, 0);
  }
}
