import type { DescriptorStoreHandle } from '@ivshmem/linux/process';
import type { DeviceOptions } from './device-options.ts';

/** Input of a device's worker. */
export interface WorkerInput {
  readonly options: DeviceOptions;
  readonly counters: SharedArrayBuffer;
  /** Keeps the device for a later process. */
  readonly store?: DescriptorStoreHandle | undefined;
}

/** What a device is, as a peer of its host server. */
export interface DeviceInfo {
  readonly id: number;
  readonly maxPeers: number;
  /** Protocol type, 16 bits. */
  readonly protocol: number;
  readonly vectors: number;
  /** Size of the shared memory in bytes, and of BAR 2, which is a power of two. */
  readonly memorySize: number;
  readonly bar2Size: number;
  /** Of each output section, in bytes. */
  readonly outputSectionSize: number;
}

/**
 * `waiting` for a VMM; `attached` to one; `orphaned`: attached, but the host server has gone, so the guest gets no new
 * peers; `no-server`: no VMM is accepted until the host server is back.
 */
export type DeviceState = 'waiting' | 'attached' | 'orphaned' | 'no-server';

/** Messages of a device's worker to the main thread. */
export type WorkerMessage =
  | { readonly type: 'up'; readonly info: DeviceInfo }
  | { readonly type: 'state'; readonly state: DeviceState }
  | { readonly type: 'log'; readonly text: string };
