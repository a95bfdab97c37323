import { counterSet } from '@ivshmem/transport';

// Counters of a device.

const counters = counterSet([
  /** Accesses of the VMM that were trapped, by what they went to. */
  'configurationReads',
  'configurationWrites',
  'registerReads',
  'registerWrites',
  'memoryReads',
  'memoryWrites',
  /** Writes to the Doorbell register, and how many of them had no effect. */
  'doorbells',
  'doorbellsWithoutEffect',
  /** Interrupts sent to the guest, and those that it had not enabled. */
  'interrupts',
  'interruptsDropped',
  'resets',
  /** VMMs that were served, that were turned away, and that were disconnected for what they sent. */
  'attached',
  'refused',
  'violations',
  /** How often the device moved to a restarted host server. */
  'reconnects',
]);

/** A snapshot of all counters. */
export type DeviceStats = ReturnType<typeof counters.read>;

export type CounterName = keyof DeviceStats;

/** Where each counter is: see countersOf in packages/transport. */
export const Counter = counters.positions;
export const allocateCounters = counters.allocate;
export const readCounters = counters.read;
