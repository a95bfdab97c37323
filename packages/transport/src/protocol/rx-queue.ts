import type { Section } from './memory-layout.ts';
import { Queue, U16 } from './queue.ts';
import { type RingLayout, USED_LENGTH } from './ring-layout.ts';
import { Violation } from './violation.ts';

/** Frames are renumbered after this many, so that numbers stay small integers and none is used twice. */
const RENUMBER = 0x2000_0000;

/**
 * The receiving side of protocol 0x0001: descriptors, avail ring and frames in the peer's output section, used ring
 * in its own one. Nothing here allocates, copies frames or calls the system.
 *
 *     for (let n = rx.available(); n > 0 && rx.next(); n--) {
 *       …use the frame of rx.length bytes at rx.offset of the peer's section…
 *     }
 *     if (rx.flush()) port.ring(peer, vector) // completes the frames; ring if the peer requested that
 *     if (rx.waitForFrames()) …sleep; after some ms: if (rx.mayBeAwaited()) port.ring(peer, vector)…
 *
 * Each value written by the peer is read once, and checked before use. The peer can still change a frame's bytes at any
 * time. Source: protocol page, section 3.
 */
export class RxQueue extends Queue {
  /** The frame that {@link next} took: its offset in the peer's section, and its length in bytes. */
  offset = 0;
  length = 0;
  /** By descriptor: the number of the frame that it carried last, 0 if it has carried none. */
  readonly #carried: Uint32Array;

  /** avail.idx up to which frames were taken, and used.idx as published. Both u16. */
  #last = 0;
  #published = 0;
  /** Frames taken since the last {@link flush}, and the number of the first of them (from 1). */
  #held = 0;
  #firstHeld = 1;

  /** Over its own section (writable) and the peer's (read-only), both `layout.outputSectionSize` bytes long. */
  constructor(own: Section, peer: Section, layout: RingLayout) {
    super(own, peer, layout);
    this.#carried = new Uint32Array(layout.length);
  }

  /** Starts from index 0. Its own section was cleared just before, by TxQueue.initialise. */
  initialise(): void {
    this.violation = Violation.NONE;
    this.#carried.fill(0);
    this.#last = 0;
    this.#published = 0;
    this.#held = 0;
    this.#firstHeld = 1;
  }

  /** Frames that were taken and not completed yet. */
  get held(): number {
    return this.#held;
  }

  /** How many frames wait (load-acquire of avail.idx), 0 … n; 0 also after a {@link violation}. */
  available(): number {
    const waiting = (Atomics.load(this.peer16, this.availIdx) - this.#last) & U16;
    if (waiting === 0 || this.violation !== Violation.NONE) return 0;
    if (waiting + this.#held > this.layout.length) {
      this.violation = Violation.AVAIL_INDEX;
      return 0;
    }
    return waiting;
  }

  /**
   * Takes the next of the {@link available} frames: see {@link offset} and {@link length}. It stays
   * valid until {@link flush}. Returns false after a {@link violation}.
   */
  next(): boolean {
    if (this.violation !== Violation.NONE) return false;
    // Local variables, since the compiler must assume that any store can change a field.
    const { peer32, own32, mask } = this;
    const last = this.#last;
    const held = this.#held;
    const firstHeld = this.#firstHeld;
    const descriptor = this.peer16[this.availRing + (last & mask)]!;
    if (descriptor > mask) return this.#fail(Violation.DESCRIPTOR_INDEX);
    const word = descriptor * 4;
    const offset = peer32[word]!;
    const offsetHigh = peer32[word + 1]!;
    const length = peer32[word + 2]!;
    const flagsAndNext = peer32[word + 3]!;
    if ((flagsAndNext & U16) !== 0) return this.#fail(Violation.DESCRIPTOR_FLAGS);
    if (offsetHigh !== 0 || offset < this.layout.data || offset + length > this.layout.outputSectionSize) {
      return this.#fail(Violation.DESCRIPTOR_RANGE);
    }
    // Held frames have the numbers from firstHeld on; whatever a descriptor carried before lies behind them.
    if (this.#carried[descriptor]! >= firstHeld) return this.#fail(Violation.DESCRIPTOR_REPEATED);
    this.#carried[descriptor] = firstHeld + held;
    // Storing only what differs leaves the cache line with the peer, which reads it.
    const entry = this.usedRing + 2 * ((this.#published + held) & mask);
    if (own32[entry] !== descriptor) own32[entry] = descriptor;
    if (own32[entry + 1] !== USED_LENGTH) own32[entry + 1] = USED_LENGTH;
    this.#last = (last + 1) & U16;
    this.#held = held + 1;
    this.offset = offset;
    this.length = length;
    return true;
  }

  /**
   * Completes all taken frames (store-release of used.idx). Returns true if the peer requested an interrupt for one of
   * them.
   */
  flush(): boolean {
    const held = this.#held;
    if (held === 0) return false;
    const used = (this.#published + held) & U16;
    this.#published = used;
    this.#firstHeld += held;
    this.#held = 0;
    if (this.#firstHeld > RENUMBER) {
      this.#carried.fill(0);
      this.#firstHeld = 1;
    }
    // Sequentially consistent: the load of used_event cannot pass the store of used.idx.
    Atomics.store(this.own16, this.usedIdx, used);
    const event = Atomics.load(this.peer16, this.usedEvent);
    return ((used - event - 1) & U16) < held;
  }

  /**
   * Requests an interrupt at the next frame, then checks once more. Returns true if none has arrived, so that the caller
   * may sleep.
   */
  waitForFrames(): boolean {
    Atomics.store(this.own16, this.availEvent, this.#last);
    return this.available() === 0;
  }

  /**
   * Whether the sender may be waiting for an interrupt although all frames are completed: the completion that it last
   * requested one for is among the last n. It may have made the request after that completion without checking again, or
   * have been unable to act on the interrupt. Both happen to Linux' sender, neither to ours.
   */
  mayBeAwaited(): boolean {
    const event = Atomics.load(this.peer16, this.usedEvent);
    return ((this.#published - event - 1) & U16) < this.layout.length;
  }

  #fail(violation: Violation): false {
    this.violation = violation;
    return false;
  }
}
