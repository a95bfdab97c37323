import type { Observable } from 'rxjs';
import type { MemoryLayout } from '../protocol/memory-layout.ts';

/** One section of the shared memory, mapped into this process. */
export interface Section {
  /** Where it begins in this process, for system calls that read or write frames in place. */
  readonly address: number;
  /** Its length in bytes. */
  readonly length: number;
  /** The same bytes, for typed arrays. Writable only where the specification lets this peer write. */
  readonly buffer: ArrayBuffer;
}

/** What a port tells besides interrupts. */
export type PortEvent =
  /** The provider has handed over all vectors of another peer: it can be rung from now on. */
  | { readonly type: 'peer-joined'; readonly peer: number }
  /** Another peer has gone; its entry in the state table is 0. */
  | { readonly type: 'peer-gone'; readonly peer: number }
  /**
   * The provider is gone, or has disconnected this peer: open another port, and close this one. If it is `usable`, memory
   * and the doorbells of peers that are still there go on to work, but nobody will report new peers. If not, the ID may
   * be another peer's already: stop using the port at once. What is written to its state has no effect any more.
   */
  | { readonly type: 'provider-gone'; readonly reason: string; readonly usable: boolean };

/**
 * What an ivshmem v2 device gives its user, whoever provides it: a host server, a PCI device, or another object in
 * the same process. All that stands above (handshake, rings, link) knows only this.
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
  /** Where the sections lie in the shared memory. */
  readonly layout: MemoryLayout;
  /** The common read/write section; null where its size is zero. */
  readonly readWrite: Section | null;
  /** The own output section, writable; null where output sections have no size. */
  readonly output: Section | null;
  /**
   * How many bytes from the beginning of the own output section may have been other than zero when the port was opened,
   * 0 … layout.outputSectionSize. What lies behind need not be cleared, which would take memory for all of it.
   */
  readonly dirtyOutput: number;
  /** Another peer's output section, read-only. Throws RangeError for an ID ≥ maxPeers. */
  input(peer: number): Section | null;
  /** State Table entry of any peer, an arbitrary u32. Throws RangeError for an ID ≥ maxPeers. */
  peerState(peer: number): number;
  /**
   * State register: the value last written. A write changes the own entry of the state table and, where the value
   * differs from the one before, interrupts every other peer on vector 0.
   */
  state: number;
  /** Doorbell register: interrupts `peer` on `vector`. No effect where either does not exist. Allocates nothing. */
  ring(peer: number, vector: number): boolean;
  /** What happens to the other peers and to the provider. Completes when the port is closed. */
  readonly events$: Observable<PortEvent>;
  /**
   * Sets the function that is called with the vector of each interrupt, on the poller the port was opened with.
   * Interrupts are hints: they may be spurious, merged or lost.
   */
  onInterrupt(handler: (vector: number) => void): void;
  /**
   * Tells a port without interrupts, which looks for news at intervals and calls the handler each time, that there was
   * work, so that it looks again soon. Other ports need not be told. Allocates nothing.
   */
  expectMore?(): void;
  /** Takes the own state to 0 and gives back memory and descriptors. Doing it again changes nothing. */
  close(): void;
}
