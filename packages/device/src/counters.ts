// Counters of a device, written by its worker alone and read by anyone: one double each in shared memory, exact up to
// 2^53.

const names = [
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
] as const;

export type CounterName = (typeof names)[number];

/** A snapshot of all counters. */
export type DeviceStats = { readonly [name in CounterName]: number };

/** Where each counter is in the array of {@link countersOf}. */
export const Counter = Object.fromEntries(names.map((name, index) => [name, index])) as {
  readonly [name in CounterName]: number;
};

export function allocateCounters(): SharedArrayBuffer {
  return new SharedArrayBuffer(names.length * Float64Array.BYTES_PER_ELEMENT);
}

export function countersOf(buffer: SharedArrayBuffer): Float64Array {
  return new Float64Array(buffer);
}

export function readCounters(buffer: SharedArrayBuffer): DeviceStats {
  const counters = countersOf(buffer);
  return Object.fromEntries(names.map((name, index) => [name, counters[index]])) as DeviceStats;
}
