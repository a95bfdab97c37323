import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { EventFd } from '@ivshmem/linux';
import { State } from '@ivshmem/transport';
import { BehaviorSubject, interval, map, type Observable, Subject, startWith, takeUntil } from 'rxjs';
import { allocateCounters, type LinkStats, readCounters } from './counters.ts';
import { DoorbellRescue } from './doorbell-rescue.ts';
import type { LinkInfo, LinkStatus, WorkerInput, WorkerMessage } from './link-messages.ts';
import { checkLinkOptions, type LinkOptions } from './link-options.ts';

/** How long a worker gets to end by itself before it is looked after, in ms. */
const PATIENCE = 200;

/** An Ethernet link between an ivshmem v2 port and a TAP interface. */
export interface Link {
  /** What the link is; changes when it moves to another port. */
  readonly info: LinkInfo;
  /** The same, at once and after each move. Completes when the link ends. */
  readonly info$: Observable<LinkInfo>;
  /** Handshake and offloads: the current state first, then every change. Completes when the link ends. */
  readonly state$: Observable<LinkStatus>;
  /** The counters, now and then every second. */
  readonly stats$: Observable<LinkStats>;
  /** One line for each thing worth knowing: a violation of the protocol, a server that went. */
  readonly log$: Observable<string>;
  /** The counters now. */
  stats(): LinkStats;
  /** Resolves when the link has ended; to an Error where it ended by itself. */
  readonly closed: Promise<Error | null>;
  /** Ends the link: the peer is told, the interface goes unless it is persistent. Resolves when all is given back. */
  close(): Promise<void>;
}

/**
 * Makes a link: opens the port, makes and configures the TAP interface, and runs the handshake and the data path in a
 * worker thread. Resolves when the interface is there; the peer may come later. Rejects, with an Error of one line
 * and nothing left behind, where an option can't be right (RangeError), the port can't be opened, or the interface
 * can't be made. An aborted `signal` gives up the wait for the port, and rejects with its reason; later it has no effect.
 */
export async function createLink(options: LinkOptions, signal?: AbortSignal): Promise<Link> {
  checkLinkOptions(options);
  signal?.throwIfAborted();
  const stop = new EventFd();
  const counters = allocateCounters();
  const input: WorkerInput = { options, stopFd: stop.fd, counters };
  // The same file from src (under a test runner) and from dist.
  const worker = new Worker(new URL('../dist/link-worker.js', import.meta.url), {
    workerData: input,
    execArgv: [],
  });
  // process.exit() waits for the worker, which does nothing but wait.
  const onExit = () => {
    stop.signal();
    doorbells.emptyCounters();
  };
  process.once('exit', onExit);

  const status = new BehaviorSubject<LinkStatus>({
    local: State.RESET,
    peer: State.RESET,
    carrier: false,
    offloads: [],
  });
  const log = new Subject<string>();
  const ended = new Subject<void>();
  const doorbells = new DoorbellRescue();
  let failure: Error | null = null;
  let info: BehaviorSubject<LinkInfo> | undefined;
  let onUp: () => void = () => {};
  const up = new Promise<void>((resolve) => {
    onUp = resolve;
  });
  worker.on('message', (message: WorkerMessage) => {
    switch (message.type) {
      case 'up':
        if (info === undefined) info = new BehaviorSubject(message.info);
        else info.next(message.info);
        onUp();
        break;
      case 'state':
        if (!isSame(message.status, status.value)) status.next(message.status);
        break;
      case 'log':
        log.next(message.text);
        break;
      case 'doorbells':
        doorbells.adopt(message.fds);
        break;
      case 'failed':
        failure = new Error(message.message);
        if (message.stack !== undefined) failure.stack = message.stack;
        break;
    }
  });
  worker.on('error', (error) => {
    failure = error as Error;
  });
  const closed = once(worker, 'exit').then(() => {
    process.off('exit', onExit);
    stop.close();
    doorbells.close();
    ended.next();
    info?.complete();
    status.complete();
    log.complete();
    return failure;
  });

  const onAbort = () => stop.signal();
  signal?.addEventListener('abort', onAbort);
  await Promise.race([up, closed]);
  signal?.removeEventListener('abort', onAbort);
  if (signal?.aborted) {
    await closed;
    signal.throwIfAborted();
  }
  if (info === undefined) throw failure ?? new Error('the worker of the link ended without a word');
  const moves = info;
  return {
    get info() {
      return moves.value;
    },
    info$: moves.asObservable(),
    state$: status.asObservable(),
    stats$: interval(1000).pipe(
      startWith(0),
      map(() => readCounters(counters)),
      takeUntil(ended),
    ),
    log$: log.asObservable(),
    stats: () => readCounters(counters),
    closed,
    async close() {
      stop.signal();
      const rescue = setInterval(() => doorbells.emptyCounters(), PATIENCE);
      await closed;
      clearInterval(rescue);
    },
  };
}

/** A link that moves to another port begins where it ended on the one before. */
function isSame(a: LinkStatus, b: LinkStatus): boolean {
  const offloads = a.offloads.join() === b.offloads.join();
  return a.local === b.local && a.peer === b.peer && a.carrier === b.carrier && offloads;
}
