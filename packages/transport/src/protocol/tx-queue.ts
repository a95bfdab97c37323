import type { Section } from './memory-layout.ts';
import { Queue, U16 } from './queue.ts';
import { RING_ALIGN, type RingLayout, USED_LENGTH } from './ring-layout.ts';
import { Violation } from './violation.ts';

/**
 * Once this many bytes at the front of the data area are free again, the next frame goes there instead of further
 * back: cycling through megabytes would put every frame into memory that is in no cache. Not earlier, so that a capture
 * (`RingObserver`) finds the last frames untouched.
 */
export const WARM_BYTES = 0x40000;

/**
 * The sending side of protocol 0x0001: descriptors, avail ring and frames in its own output section, used ring in the
 * peer's. Nothing here allocates, copies frames or calls the system.
 *
 *     const offset = tx.reserve(maxFrame);    // a slot in its own section, or -1
 *     …write a frame of `length` bytes there…
 *     tx.commit(length);                      // descriptor; more frames may follow
 *     if (tx.flush()) port.ring(peer, vector) // the peer sees them; ring if it requested that
 *
 * Descriptor i is always at position i of the avail ring, so the ring's entries are written only once: completions
 * arrive in order, so the oldest descriptor is always the next to be free.
 * Source: protocol page, section 2.
 */
export class TxQueue extends Queue {
  readonly #own8: Uint8Array;
  /** By descriptor: the offset of its frame. Our copy, the one in the section is only written. */
  readonly #slots: Uint32Array;

  /** avail.idx after the next flush, and as published; used.idx up to which completions were taken. All u16. */
  #next = 0;
  #published = 0;
  #lastUsed = 0;
  /** Offsets in the section: behind the newest frame, and of the oldest frame in flight. */
  #head = 0;
  #tail = 0;
  /** The slot that was reserved last. */
  #slot = 0;
  /** How many bytes of the section, from its beginning, may not be zero. Frames lie below it. */
  #dirty: number;

  /**
   * Over its own section (writable) and the peer's (read-only), both `layout.outputSectionSize` bytes long. `dirty`: how many
   * bytes of its own section, from its beginning, may not be zero.
   */
  constructor(own: Section, peer: Section, layout: RingLayout, dirty = layout.outputSectionSize) {
    super(own, peer, layout);
    this.#dirty = dirty;
    this.#own8 = new Uint8Array(own.buffer, 0, layout.outputSectionSize);
    this.#slots = new Uint32Array(layout.length);
    this.#reset();
  }

  /**
   * Clears its own section, which holds the used ring of the receiving side, too, and starts from index 0. Only in state
   * INIT: no data path may be using the section. Behind the rings only what frames have been written to is cleared: touching
   * the rest would take memory for all of it, and a peer that causes resets would have all of it written each time.
   */
  initialise(): void {
    this.#own8.fill(0, 0, Math.max(this.#dirty, this.layout.data));
    this.#dirty = this.layout.data;
    for (let i = 0; i < this.layout.length; i++) this.own16[this.availRing + i] = i;
    this.#reset();
  }

  #reset(): void {
    this.violation = Violation.NONE;
    this.#next = 0;
    this.#published = 0;
    this.#lastUsed = 0;
    this.#head = this.layout.data;
    this.#tail = this.layout.data;
  }

  /** Frames that were committed and not completed yet. */
  get inFlight(): number {
    return (this.#next - this.#lastUsed) & U16;
  }

  /**
   * The offset in its own section where a frame of up to `length` bytes (≤ a quarter of the data area + 36) may be
   * written, -1 if there is no room: see {@link waitForRoom}. Takes no space until {@link commit}: another call returns
   * the same slot.
   */
  reserve(length: number): number {
    const inFlight = this.inFlight;
    if (this.violation !== Violation.NONE || inFlight > this.mask) return -1;
    const front = this.layout.data;
    const head = this.#head;
    const tail = this.#tail;
    let slot = head;
    if (head > tail || inFlight === 0) {
      const free = tail - front;
      if (free >= WARM_BYTES || head + length > this.layout.outputSectionSize) {
        if (length > free) return -1;
        slot = front;
      }
    } else if (head + length > tail) {
      return -1;
    }
    this.#slot = slot;
    if (slot + length > this.#dirty) this.#dirty = slot + length;
    return slot;
  }

  /**
   * Puts the frame of `length` bytes (1 … as many as were reserved) in the reserved slot into the queue;
   * {@link flush} shows it to the peer.
   */
  commit(length: number): void {
    const { own32 } = this;
    const next = this.#next;
    const descriptor = next & this.mask;
    const word = descriptor * 4;
    const slot = this.#slot;
    own32[word] = slot;
    own32[word + 2] = length;
    this.#slots[descriptor] = slot;
    this.#head = slot + ((length + RING_ALIGN - 1) & -RING_ALIGN);
    this.#next = (next + 1) & U16;
  }

  /**
   * Makes all committed frames visible (store-release of avail.idx). Returns true if the peer requested an interrupt
   * for one of them.
   */
  flush(): boolean {
    const next = this.#next;
    const old = this.#published;
    if (next === old) return false;
    this.#published = next;
    // Sequentially consistent: the load of avail_event cannot pass the store of avail.idx.
    Atomics.store(this.own16, this.availIdx, next);
    const event = Atomics.load(this.peer16, this.availEvent);
    return ((next - event - 1) & U16) < ((next - old) & U16);
  }

  /** Takes the peer's completions. Returns the number of completed frames; 0 also after a {@link violation}. */
  reclaim(): number {
    const used = Atomics.load(this.peer16, this.usedIdx);
    const last = this.#lastUsed;
    const count = (used - last) & U16;
    if (count === 0) return 0;
    if (this.violation !== Violation.NONE) return 0;
    if (count > ((this.#published - last) & U16)) return this.#fail(Violation.USED_INDEX);
    const { mask, peer32 } = this;
    const ring = this.usedRing;
    for (let i = 0; i < count; i++) {
      const position = (last + i) & mask;
      const entry = ring + 2 * position;
      if (peer32[entry] !== position) return this.#fail(Violation.USED_ID);
      if (peer32[entry + 1] !== USED_LENGTH) return this.#fail(Violation.USED_LENGTH);
    }
    this.#lastUsed = used;
    this.#tail = used === this.#next ? this.#head : this.#slots[used & mask]!;
    return count;
  }

  /**
   * Requests an interrupt when the peer has completed half of the visible frames, then checks once more. Returns true if
   * there is still no room for a frame of `length` bytes, so that the caller may sleep. Call {@link flush} before.
   */
  waitForRoom(length: number): boolean {
    let reclaimed: number;
    do {
      const shown = (this.#published - this.#lastUsed) & U16;
      Atomics.store(this.own16, this.usedEvent, (this.#lastUsed + (shown >> 1)) & U16);
      // The peer may already have completed more than half and so passed that index: request the interrupt again.
      reclaimed = this.reclaim();
    } while (reclaimed > 0 && this.reserve(length) === -1);
    return this.violation === Violation.NONE && this.reserve(length) === -1;
  }

  #fail(violation: Violation): number {
    this.violation = violation;
    return 0;
  }
}
