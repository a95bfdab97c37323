import type { MemoryLayout, Section } from '../protocol/memory-layout.ts';

/** What a port reports besides interrupts. */
export type PortEvent =
  /** The provider has announced all vectors of another peer, which can be interrupted from now on. */
  | { readonly type: 'peer-joined'; readonly peer: number }
  /** Another peer has gone; its entry in the state table is 0. */
  | { readonly type: 'peer-gone'; readonly peer: number }
  /**
   * The provider has gone away, or has disconnected this peer: open another port, and close this one. If it is `usable`,
   * memory and the doorbells of connected peers still work, but new peers are not reported. If not, the ID may already
   * belong to another peer: stop using the port immediately; writes to its state have no effect any more.
   */
  | { readonly type: 'provider-gone'; readonly reason: string; readonly usable: boolean };

/**
 * An ivshmem v2 device as its driver sees it, provided by a host server, a PCI device, or another object in the same
 * process. Everything above it (handshake, rings, link) depends on this interface only.
 * Source: specification, "Guest-side Programming Model".
 */
export interface Port {
  /** ID register: this peer, 0 … maxPeers - 1. */
  readonly id: number;
  /** Maximum Peers register: 2 … 1024 (what a state table of 4096 bytes holds). */
  readonly maxPeers: number;
  /** Protocol type, 16 bits, as in the class code. */
  readonly protocol: number;
  /** Interrupt vectors of every peer, ≥ 1. */
  readonly vectors: number;
  /** Offsets and sizes of the sections of the shared memory. */
  readonly layout: MemoryLayout;
  /** The common read/write section; null if its size is zero. */
  readonly readWrite: Section | null;
  /** This peer's output section, writable; null if the size of output sections is zero. */
  readonly output: Section | null;
  /**
   * Length in bytes of the part of this peer's output section, from its beginning, that may not have been zero when the
   * port was opened, 0 … layout.outputSectionSize. The rest need not be cleared, which would allocate its pages.
   */
  readonly dirtyOutput: number;
  /** Another peer's output section, read-only. Throws RangeError for an ID ≥ maxPeers. */
  input(peer: number): Section | null;
  /** State Table entry of any peer, an arbitrary u32. Throws RangeError for an ID ≥ maxPeers. */
  peerState(peer: number): number;
  /**
   * State register: the value last written. A write updates this peer's entry in the state table and, if the value
   * changes, interrupts every other peer on vector 0.
   */
  state: number;
  /** Doorbell register: interrupts `peer` on `vector`. Returns false if either does not exist. Allocates nothing. */
  ring(peer: number, vector: number): boolean;
  /**
   * Sets the function that is called with the vector of each interrupt, on the poller the port was opened with.
   * Interrupts are hints: they may be spurious, merged or lost.
   */
  onInterrupt(handler: (vector: number) => void): void;
  /**
   * Sets the function that is called for each change of the other peers or of the provider, until the port is closed. It
   * replaces the one set before. What it throws comes out of the poller's wait.
   */
  onEvent(handler: (event: PortEvent) => void): void;
  /**
   * For ports without interrupts, which poll at intervals and call the interrupt handler each time: there was work, so poll
   * again soon. Other ports do not have it. Allocates nothing.
   */
  expectMore?(): void;
  /** Sets this peer's state to 0 and releases memory and descriptors. Idempotent. */
  close(): void;
  /** The same as {@link close}. */
  [Symbol.dispose](): void;
}
