// Counters of a link, written by its worker alone and read by anyone: one double each in shared memory, exact up to
// 2^53. "tx" is what goes from the TAP to the peer, "rx" what comes from the peer to the TAP.

const names = [
  'txFrames',
  'txBytes',
  'rxFrames',
  'rxBytes',
  /** Frames that the TAP still held while the link was down. */
  'dropsLinkDown',
  /** Frames longer than MTU + 18 bytes from the TAP, or than 65553 bytes from the peer. */
  'dropsOversize',
  /** Frames of the peer shorter than 14 bytes. */
  'dropsRunt',
  /** Frames of the peer that the TAP did not take (the interface is down). */
  'dropsRefused',
  /** Bursts for which the peer was interrupted, and for which it did not ask for it. */
  'doorbellsSent',
  'doorbellsSuppressed',
  /** Interrupts from the peer. */
  'interrupts',
  /** How often the worker woke from sleep. */
  'wakeups',
  /** How often the ring was full, and the TAP had to wait for the peer. */
  'ringFull',
  /** How often the link went down from READY or RUN. */
  'resets',
  /** Resets because the peer violated the protocol. */
  'violations',
  /** Values above 3 in the peer's state table entry. */
  'invalidPeerStates',
  /** How often the link moved to a restarted host server. */
  'reconnects',
] as const;

export type CounterName = (typeof names)[number];

/** A snapshot of all counters. */
export type LinkStats = { readonly [name in CounterName]: number };

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

export function readCounters(buffer: SharedArrayBuffer): LinkStats {
  const counters = countersOf(buffer);
  return Object.fromEntries(names.map((name, index) => [name, counters[index]])) as LinkStats;
}
