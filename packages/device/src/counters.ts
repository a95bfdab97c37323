import { counterSet } from '@ivshmem/transport';

// Counters of a device.

const counters = counterSet([
  /** Trapped accesses of the VMM, by what they accessed. */
  'configurationReads',
  'configurationWrites',
  'registerReads',
  'registerWrites',
  'memoryReads',
  'memoryWrites',
  /** Writes to the Doorbell register, and those that had no effect. */
  'doorbells',
  'doorbellsWithoutEffect',
  /** Interrupts sent to the guest, and those that it had not enabled. */
  'interrupts',
  'interruptsDropped',
  'resets',
  /** VMMs that attached, that were rejected, and that were disconnected because they violated the protocol. */
  'attached',
  'refused',
  'violations',
  /** How often the device moved to a restarted host server. */
  'reconnects',
]);

/** A snapshot of all counters. */
export type DeviceStats = ReturnType<typeof counters.read>;

export type CounterName = keyof DeviceStats;

/** Index of each counter: see countersOf in packages/transport. */
export const Counter = counters.positions;
export const allocateCounters = counters.allocate;
export const readCounters = counters.read;
