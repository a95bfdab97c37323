import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { BlockedWriteWatch, EventFd } from '@ivshmem/linux';
import { BehaviorSubject, interval, map, type Observable, Subject, startWith, takeUntil } from 'rxjs';
import { allocateCounters, type DeviceStats, readCounters } from './counters.ts';
import type { DeviceInfo, DeviceState, WorkerInput, WorkerMessage } from './device-messages.ts';
import { checkDeviceOptions, type DeviceOptions } from './device-options.ts';

/** How often the worker is looked after, in ms: what blocks it is removed within twice that. */
const WATCH_INTERVAL = 250;

/** An ivshmem v2 PCI device, offered to a VMM by vfio-user. */
export interface Device {
  /** What the device is; changes when it moves to another host server. */
  readonly info: DeviceInfo;
  /** The same, at once and after each move. Completes when the device ends. */
  readonly info$: Observable<DeviceInfo>;
  /** Whether a VMM uses it: the current state first, then every change. Completes when the device ends. */
  readonly state$: Observable<DeviceState>;
  /** The counters, now and then every second. */
  readonly stats$: Observable<DeviceStats>;
  /** One line for each thing worth knowing: a VMM that came or went, a server that went. */
  readonly log$: Observable<string>;
  /** The counters now. */
  stats(): DeviceStats;
  /** Resolves when the device has ended; to an Error where it ended by itself. */
  readonly closed: Promise<Error | null>;
  /** Ends the device: the VMM is disconnected, the peers are told. Resolves when all is given back. */
  close(): Promise<void>;
}

/**
 * Makes a device: a peer of a host server that listens for a VMM at a vfio-user socket, in a worker thread of its
 * own. One VMM at a time; when it goes, the next one may come. Resolves when a VMM can connect. Rejects, with an Error
 * of one line and nothing left behind, where an option can't be right (RangeError), the socket can't be had, or
 * no host server answers. An aborted `signal` gives up, and rejects with its reason; later it has no effect.
 */
export async function createDevice(options: DeviceOptions, signal?: AbortSignal): Promise<Device> {
  checkDeviceOptions(options);
  signal?.throwIfAborted();
  const stop = new EventFd();
  const watch = new BlockedWriteWatch();
  const counters = allocateCounters();
  const input: WorkerInput = { options, stopFd: stop.fd, counters, writes: watch.cells };
  // The same file from src (under a test runner) and from dist.
  const worker = new Worker(new URL('../dist/device-worker.js', import.meta.url), { workerData: input });
  const timer = setInterval(() => watch.check(), WATCH_INTERVAL).unref();
  // process.exit() waits for the worker, which does nothing but wait.
  const onExit = () => {
    stop.signal();
    for (let looks = 0; looks < 2; looks++) watch.check();
  };
  process.once('exit', onExit);

  const state = new BehaviorSubject<DeviceState>('no-server');
  const log = new Subject<string>();
  const ended = new Subject<void>();
  let failure: Error | null = null;
  let info: BehaviorSubject<DeviceInfo> | undefined;
  let onUp: () => void = () => {};
  const up = new Promise<void>((resolve) => {
    onUp = resolve;
  });
  worker.on('message', (message: WorkerMessage) => {
    switch (message.type) {
      case 'up':
        if (info === undefined) info = new BehaviorSubject(message.info);
        else info.next(message.info);
        break;
      case 'state':
        state.next(message.state);
        onUp();
        break;
      case 'log':
        log.next(message.text);
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
    clearInterval(timer);
    stop.close();
    ended.next();
    info?.complete();
    state.complete();
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
  if (info === undefined) throw failure ?? new Error('the worker of the device ended without a word');
  const moves = info;
  return {
    get info() {
      return moves.value;
    },
    info$: moves.asObservable(),
    state$: state.asObservable(),
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
      await closed;
    },
  };
}
