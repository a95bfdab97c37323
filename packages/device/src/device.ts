import type { DescriptorStore } from '@ivshmem/linux/process';
import { startBlockingThread } from '@ivshmem/linux/thread';
import type { BehaviorSubject, Observable } from 'rxjs';
import { allocateCounters, type DeviceStats, readCounters } from './counters.ts';
import type { DeviceInfo, DeviceState, WorkerInput, WorkerMessage } from './device-messages.ts';
import { checkDeviceOptions, type DeviceOptions } from './device-options.ts';

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
  /** One line for each noteworthy event: a VMM that attaches or leaves, the end of a server. */
  readonly log$: Observable<string>;
  /** The counters now. */
  stats(): DeviceStats;
  /** Resolves when the device has ended: to null after {@link close}, to an Error of one line if it failed. */
  readonly closed: Promise<Error | null>;
  /**
   * Ends the device: the VMM is disconnected, the peers see it leave. With a store, both notice nothing until the device is
   * created again with what was left there. Resolves when everything is released.
   */
  close(): Promise<void>;
  /** The same as {@link close}. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Creates a device: a peer of a host server that listens for a VMM at a vfio-user socket, in a worker thread of its own.
 * It serves one VMM at a time; after that disconnects, another may connect. Resolves when a VMM can connect.
 *
 * Rejects with an Error of one line, having released everything, if an option is invalid (OptionError), the socket cannot
 * be created (SystemCallError), or no host server listens (SystemCallError: ENOENT, ECONNREFUSED). Aborting `signal` before
 * that cancels, and rejects with its reason; later it has no effect. `log` is called with the lines logged before this
 * resolves, such as what `options.wait` waits for.
 *
 * With a `store` of its own, the device outlives the process, whatever ends it: one with the same options that is created
 * with what was left in the store continues with the same VMM. If it cannot, a line says why, and it starts anew.
 */
export async function createDevice(
  options: DeviceOptions,
  signal?: AbortSignal,
  log: (text: string) => void = () => {},
  store?: DescriptorStore,
): Promise<Device> {
  checkDeviceOptions(options);
  const counters = allocateCounters();
  const input: WorkerInput = { options, counters, store: store?.handOver() };
  // Loading rxjs takes longer than all else here, and those who only check options or use the model do not need it.
  const rxjs = await import('rxjs');
  const state = new rxjs.BehaviorSubject<DeviceState>('no-server');
  const lines = new rxjs.Subject<string>();
  let info: BehaviorSubject<DeviceInfo> | undefined;
  let starting = true;
  const thread = await startBlockingThread<WorkerMessage>({
    // The same file from src (under a test runner) and from dist.
    file: new URL('../dist/device-worker.js', import.meta.url),
    input,
    // The first state comes behind the first 'up'.
    upWith: 'state',
    receive(message) {
      switch (message.type) {
        case 'up':
          if (info === undefined) info = new rxjs.BehaviorSubject(message.info);
          else info.next(message.info);
          break;
        case 'state':
          // Those in between may have been left out.
          if (message.state !== state.value) state.next(message.state);
          break;
        case 'log':
          if (starting) log(message.text);
          else lines.next(message.text);
          break;
      }
    },
    ended() {
      for (const subject of [info, state, lines]) subject?.complete();
    },
    signal,
  });
  starting = false;
  const moves = info!;
  return {
    ...thread,
    get info() {
      return moves.value;
    },
    info$: moves.asObservable(),
    state$: state.asObservable(),
    stats$: rxjs.interval(1000).pipe(
      rxjs.startWith(0),
      rxjs.map(() => readCounters(counters)),
      rxjs.takeUntil(thread.closed),
    ),
    log$: lines.asObservable(),
    stats: () => readCounters(counters),
  };
}
