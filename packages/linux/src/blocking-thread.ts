import { once } from 'node:events';
import { parentPort, Worker, workerData } from 'node:worker_threads';
import { BlockedWriteWatch, EventFd, reportEventFdWrites } from './eventfd.ts';

/** How often a thread is looked after, in ms: seldom enough that an idle one costs next to nothing. */
const LOOK_INTERVAL = 2000;
/** The same while it is in a write to an eventfd, or is to end. */
const SHORT_INTERVAL = 250;
/** While the process exits: ms between looks, and how many of them until a thread counts as dead. */
const EXIT_INTERVAL = 20;
const EXIT_LOOKS = 250;

/** What the main thread gives a thread, besides its input. */
interface ThreadData<Input> {
  readonly input: Input;
  readonly stopFd: number;
  readonly writes: Int32Array<SharedArrayBuffer>;
  /** One of the three below. */
  readonly phase: Int32Array<SharedArrayBuffer>;
}

const STARTING = 0;
const RUNNING = 1;
const OVER = 2;

/** The last words of a thread. */
interface Failed {
  readonly type: 'failed';
  readonly message: string;
  readonly stack: string | undefined;
}

/** A thread that blocks in system calls, as the one that started it sees it. */
export interface BlockingThread {
  /** Resolves when the thread has ended; to an Error where it ended by itself. */
  readonly ended: Promise<Error | null>;
  /** Asks the thread to end. */
  stop(): void;
}

/**
 * Starts a thread that never turns an event loop, see {@link runBlockingThread}. Nothing but its own end can stop
 * such a thread: neither worker.terminate() nor process.exit() gets past a system call that blocks. Hence the eventfd,
 * which it waits for beside all others, and which is also signalled when the process exits.
 *
 * Whoever shares an eventfd with the thread can block its writes (see {@link BlockedWriteWatch}): it gets out within
 * a few seconds, at the exit of the process sooner.
 *
 * `file` calls {@link runBlockingThread}, `input` is cloned. All messages go to `receive`; the first with the type
 * `upWith` says that the thread is up, which is what the promise waits for. Rejects with an Error when the thread
 * ends before that. An aborted `signal` stops it, and rejects with the signal's reason when it has ended; once the
 * thread is up it has no effect.
 */
export async function startBlockingThread<Message extends { readonly type: string }>(options: {
  readonly file: URL;
  readonly input: unknown;
  readonly upWith: Message['type'];
  readonly receive: (message: Message) => void;
  readonly signal?: AbortSignal | undefined;
}): Promise<BlockingThread> {
  const { file, input, upWith, receive, signal } = options;
  signal?.throwIfAborted();
  const stop = new EventFd();
  const watch = new BlockedWriteWatch();
  const phase = new Int32Array(new SharedArrayBuffer(4));
  const data: ThreadData<unknown> = { input, stopFd: stop.fd, writes: watch.cells, phase };
  const worker = new Worker(file, { workerData: data, execArgv: [] });
  let timer: NodeJS.Timeout | undefined;
  let stopping = false;
  const look = () => {
    clearTimeout(timer);
    timer = setTimeout(look, watch.check() || stopping ? SHORT_INTERVAL : LOOK_INTERVAL).unref();
  };
  look();
  const askToEnd = () => {
    // Not once it has ended.
    if (!stop.signal()) return;
    stopping = true;
    look();
  };
  const onExit = () => {
    stop.signal();
    // Its last doings are writes, too, and this thread is the only one that can help.
    if (Atomics.compareExchange(phase, 0, STARTING, OVER) !== RUNNING) return;
    for (let looks = 0; looks < EXIT_LOOKS; looks++) {
      if (Atomics.wait(phase, 0, RUNNING, EXIT_INTERVAL) !== 'timed-out') return;
      watch.check();
    }
  };
  process.once('exit', onExit);

  let failure: Error | null = null;
  let isUp = false;
  let onUp = () => {};
  const up = new Promise<void>((resolve) => {
    onUp = resolve;
  });
  worker.on('message', (message: Message | Failed) => {
    if (isFailed(message)) {
      failure = new Error(message.message);
      if (message.stack !== undefined) failure.stack = message.stack;
      return;
    }
    receive(message);
    if (message.type !== upWith) return;
    isUp = true;
    onUp();
  });
  worker.on('error', (error) => {
    failure = error as Error;
  });
  const ended = once(worker, 'exit').then(() => {
    process.off('exit', onExit);
    clearTimeout(timer);
    stop.close();
    return failure;
  });

  signal?.addEventListener('abort', askToEnd);
  await Promise.race([up, ended]);
  signal?.removeEventListener('abort', askToEnd);
  if (signal?.aborted) {
    await ended;
    signal.throwIfAborted();
  }
  if (!isUp) throw (await ended) ?? new Error('the thread ended without a word');
  return { ended, stop: askToEnd };
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
  const { input, stopFd, writes, phase } = workerData as ThreadData<Input>;
  // The process may be about to exit.
  if (Atomics.compareExchange(phase, 0, STARTING, RUNNING) !== STARTING) return;
  reportEventFdWrites(writes);
  const post = (message: Message | Failed) => parentPort!.postMessage(message);
  try {
    run(input, stopFd, post);
  } catch (error) {
    const { message, stack } = error instanceof Error ? error : new Error(String(error));
    post({ type: 'failed', message, stack });
  } finally {
    Atomics.store(phase, 0, OVER);
    Atomics.notify(phase, 0);
  }
}
