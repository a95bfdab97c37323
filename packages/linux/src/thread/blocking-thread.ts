import { once } from 'node:events';
import { parentPort, receiveMessageOnPort, Worker, workerData } from 'node:worker_threads';
import { threadError } from '../errors.ts';
import { releaseSignals } from '../wait/doorbell.ts';
import { EventFd } from '../wait/eventfd.ts';
import { type ErrorRecord, errorOf, errorRecord } from './error-record.ts';

/** Maximum time that the exit of the process waits for a thread to end, in ms. */
const EXIT_PATIENCE = 5000;

/** The data with which the main thread loads a thread; its input comes as a message. */
interface ThreadData {
  readonly stopFd: number;
  /** LOADING until the input has been sent, then STARTING, RUNNING or OVER. */
  readonly phase: Int32Array<SharedArrayBuffer>;
}

const LOADING = 0;
const STARTING = 1;
const RUNNING = 2;
const OVER = 3;

/** A thread that loads its file, or waits for its input. */
interface LoadedThread {
  readonly worker: Worker;
  readonly stop: EventFd;
  readonly phase: Int32Array<SharedArrayBuffer>;
}

/** By file, those that wait. */
const preloaded = new Map<string, LoadedThread>();

function loadThread(file: URL): LoadedThread {
  const stop = new EventFd();
  const phase = new Int32Array(new SharedArrayBuffer(4));
  const data: ThreadData = { stopFd: stop.fd, phase };
  try {
    return { worker: new Worker(file, { workerData: data, execArgv: [] }), stop, phase };
  } catch (error) {
    stop.close();
    throw threadError(error as Error);
  }
}

/**
 * Loads a file in a thread that the next {@link startBlockingThread} with this file uses. Until then it does not keep the process
 * alive. If that fails, the file is loaded later.
 */
export function preloadThread(file: URL): void {
  if (preloaded.has(file.href)) return;
  const thread = loadThread(file);
  thread.worker.unref();
  thread.worker.on('error', () => {
    preloaded.delete(file.href);
    thread.stop.close();
  });
  preloaded.set(file.href, thread);
}

function takeThread(file: URL): LoadedThread {
  const thread = preloaded.get(file.href);
  if (thread === undefined) return loadThread(file);
  preloaded.delete(file.href);
  thread.worker.removeAllListeners('error');
  thread.worker.ref();
  return thread;
}

/** The last message of a thread that has thrown. */
interface Failed {
  readonly type: 'failed';
  readonly error: ErrorRecord;
}

/** Handle of a thread that blocks in system calls. */
export interface BlockingThread {
  /** Resolves when the thread has ended: to null if it was stopped, to the error that it threw otherwise. */
  readonly closed: Promise<Error | null>;
  /** Stops the thread. Resolves when it has ended. */
  close(): Promise<void>;
  /** The same as {@link close}. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Starts a thread that does not run an event loop, see {@link runBlockingThread}. Neither worker.terminate() nor
 * process.exit() can interrupt a blocking system call, so the thread also polls an eventfd, which is signalled to stop it
 * and when the process exits.
 *
 * `file` calls {@link runBlockingThread}; `input` is cloned. All messages are passed to `receive`. The promise resolves
 * with the first message of type `upWith`, which means that the thread is up. If the thread ends before that, the promise
 * rejects with the error that it threw: class (`SystemCallError`, OptionError, RangeError, TypeError), name and properties
 * such as `code` are kept. If `signal` is aborted before the thread is up, the thread is stopped, and the promise rejects
 * with the signal's reason when it has ended.
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
  const { worker, stop, phase } = takeThread(file);
  const onExit = () => {
    stop.signal();
    // Wait until the thread has notified its peers.
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

  worker.postMessage(input);
  Atomics.store(phase, 0, STARTING);
  Atomics.notify(phase, 0);
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
 * The thread's side of {@link startBlockingThread}: its file calls this once. `run` must return when `stopFd` becomes
 * readable. An error that it throws is reported as the failure of the thread. Afterwards the thread ends, unless something
 * keeps its event loop alive.
 */
export function runBlockingThread<Input, Message extends { readonly type: string }>(
  run: (input: Input, stopFd: number, tell: (message: Message) => void) => void,
): void {
  const { stopFd, phase } = workerData as ThreadData;
  Atomics.wait(phase, 0, LOADING);
  // The process may be about to exit.
  if (Atomics.compareExchange(phase, 0, STARTING, RUNNING) !== STARTING) return;
  const input: Input = receiveMessageOnPort(parentPort!)?.message;
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
