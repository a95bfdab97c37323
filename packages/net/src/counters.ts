import { counterSet } from '@ivshmem/transport';

// Counters of a link. "tx" is what this end sends to the peer, "rx" what it receives from the peer.

const counters = counterSet([
  'txFrames',
  'txBytes',
  'rxFrames',
  'rxBytes',
  /** Frames that the TAP still held while the link was down, or held for a peer that could receive more offloads. */
  'dropsLinkDown',
  /**
   * Frames from the TAP of more than MTU + 22 bytes (+ 18 for a peer that announces no MTU; segments to be cut aside), and
   * frames of the peer of more than 65553 bytes.
   */
  'dropsOversize',
  /** Frames of the peer shorter than 14 bytes. */
  'dropsRunt',
  /** Frames of the peer whose header is invalid, or uses an offload that was not negotiated. */
  'dropsHeader',
  /** Frames of the peer that the TAP did not take: the interface is down, or headers inside the frame are damaged. */
  'dropsRefused',
  /** Bursts after which the peer was interrupted, and after which it had not requested an interrupt. */
  'doorbellsSent',
  'doorbellsSuppressed',
  /** Interrupts from the peer. */
  'interrupts',
  /** How often the worker woke from sleep. */
  'wakeups',
  /** How often the ring was full, and this end had to wait for the peer. */
  'ringFull',
  /** How often the link went down from READY or RUN. */
  'resets',
  /** Resets because the peer violated the protocol, or many frames in a row had wrong headers. */
  'violations',
  /** Values above 3 in the peer's state table entry. */
  'invalidPeerStates',
  /** How often the link moved to a restarted host server. */
  'reconnects',
]);

/** A snapshot of all counters. */
export type LinkStats = ReturnType<typeof counters.read>;

export type CounterName = keyof LinkStats;

/** Where each counter is: see countersOf in packages/transport. */
export const Counter = counters.positions;
export const allocateCounters = counters.allocate;
export const readCounters = counters.read;
