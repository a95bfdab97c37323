import type { Section } from './memory-layout.ts';
import { U16 } from './queue.ts';
import { RING_ALIGN, type RingLayout, USED_ENTRY_SIZE } from './ring-layout.ts';
import { WARM_BYTES } from './tx-queue.ts';

/**
 * What a sender may have written without having published it, in bytes: a burst of `ivshmem net`, and one frame more. It writes
 * on behind its last frame, and goes to the front no earlier than at its WARM_BYTES.
 */
const BURST_BYTES = 0x20000 + 0x11000;
/** How long a frame in such a place waits for the next publication, in ms. Then it is reported as doubtful. */
const SETTLE_MS = 20;
/**
 * Indices count modulo 65536. Whether a frame is in flight is known only as long as fewer frames than this can have passed
 * since the index was read, at the highest rate that was seen so far; and for at most so many ms.
 */
const AMBIGUOUS_FRAMES = 16384;
const AMBIGUOUS_MS = 20;
/** A rate is measured over so many ms at least: frames come in bursts. */
const RATE_MS = 0.05;
/** Copies that may wait until they are known to be whole, in bytes. */
const MAX_PENDING_BYTES = 2 ** 25;

/** Clocks of an observer. */
export interface ObserverClock {
  /** Monotonic, in ms. */
  now(): number;
  /** In ns since 1970. */
  time(): bigint;
}

/** A frame that was read whole. */
export interface ObservedFrame {
  /** A copy of its first bytes, as they are in the section: with the offload header, if there is one. */
  readonly bytes: Uint8Array;
  /** Its length in the section, in bytes. */
  readonly length: number;
  /** When it was seen, in ns since 1970. */
  readonly time: bigint;
  /** Frames missed since the one before. */
  readonly missedBefore: number;
  /** It may have been overwritten while it was copied: the sender has been silent since then. */
  readonly isDoubtful: boolean;
}

interface Copy extends Omit<ObservedFrame, 'missedBefore' | 'isDoubtful'> {
  readonly sequence: number;
  readonly offset: number;
  readonly copiedAt: number;
  /** avail.idx after it was copied. */
  readonly avail: number;
  fate: 'whole' | 'lost' | 'open';
}

/**
 * Reads the frames that one side sends, without being a party to the link: it writes nothing, and neither side notices. It
 * sees a frame only if it looks before the sender reuses its place. A frame that has been overwritten while it was copied is
 * counted as missed, like one that it was too late for.
 *
 * A frame that is still in flight after the copy is whole, since its place belongs to it until the receiver completes it. A frame
 * that was completed before is whole if its sender cannot have begun to write there: it lies too far from where the sender goes
 * on, or nothing that it publishes next lies there.
 *
 * The peers are not trusted: whatever they write, nothing outside of the section is read.
 */
export class RingObserver {
  /** Frames that were not read, or may not have been read whole. */
  missed = 0;
  /** Descriptors that no receiver accepts. */
  invalid = 0;
  readonly #layout: RingLayout;
  readonly #mask: number;
  readonly #bytes: Uint8Array;
  readonly #sender16: Uint16Array;
  readonly #sender32: Uint32Array;
  readonly #receiver16: Uint16Array;
  readonly #availIdx: number;
  readonly #availRing: number;
  readonly #usedIdx: number;
  readonly #availEvent: number;
  readonly #snapLength: number;
  readonly #received: (frame: ObservedFrame) => void;
  /** By 64 bytes of the section: the number of the last frame that was published there. */
  readonly #owners: Uint32Array;
  /** The frames of one poll, by position. */
  readonly #descriptors: Uint32Array;
  readonly #offsets: Uint32Array;
  readonly #lengths: Uint32Array;
  /** Numbers frames, u32; 0 is none. */
  #sequence = 1;
  /** avail.idx up to which frames were read, u16. */
  #last: number;
  /** When avail.idx was read last, and the highest rate so far, in frames per ms. */
  #polledAt = 0;
  #rate = 0;
  #pending: Copy[] = [];
  #pendingBytes = 0;
  #missedBefore = 0;

  /**
   * Over the output sections of both sides, read-only. Begins with the next frame. `received` is called by {@link poll},
   * in the order of sending. At most `snapLength` bytes of a frame are copied.
   */
  constructor(
    sender: Section,
    receiver: Section,
    layout: RingLayout,
    received: (frame: ObservedFrame) => void,
    snapLength = Number.POSITIVE_INFINITY,
  ) {
    this.#layout = layout;
    this.#mask = layout.length - 1;
    this.#received = received;
    this.#snapLength = snapLength;
    this.#bytes = new Uint8Array(sender.buffer, 0, layout.outputSectionSize);
    this.#sender16 = new Uint16Array(sender.buffer, 0, layout.data / 2);
    this.#sender32 = new Uint32Array(sender.buffer, 0, layout.data / 4);
    this.#receiver16 = new Uint16Array(receiver.buffer, 0, layout.data / 2);
    this.#availIdx = layout.avail / 2 + 1;
    this.#availRing = layout.avail / 2 + 2;
    this.#usedIdx = layout.used / 2 + 1;
    this.#availEvent = (layout.used + 4 + USED_ENTRY_SIZE * layout.length) / 2;
    this.#owners = new Uint32Array(Math.ceil(layout.outputSectionSize / RING_ALIGN));
    this.#descriptors = new Uint32Array(layout.length);
    this.#offsets = new Uint32Array(layout.length);
    this.#lengths = new Uint32Array(layout.length);
    this.#last = Atomics.load(this.#sender16, this.#availIdx);
  }

  /**
   * Reads what is left, when the sender leaves the link and before it clears its section. What is not known to be whole then
   * is missed. Call {@link restart} before the next {@link poll}.
   */
  finish(clock: ObserverClock): void {
    const avail = Atomics.load(this.#sender16, this.#availIdx);
    // Otherwise the section has been cleared already.
    if (((avail - this.#last) & U16) <= this.#layout.length) this.poll(clock);
    for (const copy of this.#pending) if (copy.fate === 'open') copy.fate = 'lost';
    this.#release(0);
  }

  /** The sender has cleared its section and joins the link again: its next frame has index 0. */
  restart(): void {
    this.#last = 0;
  }

  /** Whether the receiver has requested a doorbell for the next frame, so that nothing is missed by waiting for that. */
  get willRing(): boolean {
    return Atomics.load(this.#receiver16, this.#availEvent) === this.#last;
  }

  /** When the oldest frame was seen that is not yet known to be whole; null if there is none. */
  get unsettledSince(): bigint | null {
    return this.#pending[0]?.time ?? null;
  }

  /**
   * Reads all frames that are new. Returns how many the sender has published since the last call, modulo 65536: call this
   * more often than that many frames can pass.
   */
  poll(clock: ObserverClock): number {
    const now = clock.now();
    const avail = Atomics.load(this.#sender16, this.#availIdx);
    const published = (avail - this.#last) & U16;
    const elapsed = now - this.#polledAt;
    this.#polledAt = now;
    if (published === 0) {
      if (this.#pending.length > 0) this.#release(now);
      return 0;
    }
    const isUnambiguous = elapsed < this.#unambiguousMs();
    if (isUnambiguous) this.#rate = Math.max(this.#rate, published / Math.max(elapsed, RATE_MS));
    const time = clock.time();
    const { length } = this.#layout;
    const count = Math.min(published, length);
    if (count < published) this.#miss(published - count);
    const first = (avail - count) & U16;
    this.#last = avail;
    const sequence = this.#sequence;
    this.#sequence = (sequence + count) >>> 0 || 1;
    for (let i = 0; i < count; i++) this.#locate(i, (first + i) & this.#mask, (sequence + i) >>> 0);
    const isComplete = isUnambiguous && count === published;
    for (const copy of this.#pending) {
      if (copy.fate !== 'open') continue;
      if (!isComplete || !this.#owns(copy.sequence, copy.offset, copy.length)) copy.fate = 'lost';
      else if (avail !== copy.avail) copy.fate = 'whole';
    }
    for (let i = 0; i < count; i++)
      this.#copy(i, (first + i) & U16, (sequence + i) >>> 0, time, clock, count - 1);
    this.#release(clock.now());
    return published;
  }

  /** For how long after reading an index it is certain which frame it means, in ms. */
  #unambiguousMs(): number {
    return Math.min(AMBIGUOUS_MS, AMBIGUOUS_FRAMES / this.#rate);
  }

  #miss(count: number): void {
    this.missed += count;
    this.#missedBefore += count;
  }

  /** Reads the descriptor at a position of the avail ring, and takes the place of its frame from all before. */
  #locate(i: number, position: number, sequence: number): void {
    const descriptor = this.#sender16[this.#availRing + position]!;
    this.#descriptors[i] = descriptor;
    const word = descriptor * 4;
    if (descriptor > this.#mask) {
      this.#reject(i);
      return;
    }
    const offset = this.#sender32[word]!;
    const length = this.#sender32[word + 2]!;
    const isPlain = this.#sender32[word + 1] === 0 && (this.#sender32[word + 3]! & U16) === 0;
    const { data, outputSectionSize } = this.#layout;
    if (!isPlain || offset < data || offset + length > outputSectionSize) {
      this.#reject(i);
      return;
    }
    this.#offsets[i] = offset;
    this.#lengths[i] = length;
    this.#owners.fill(sequence, Math.floor(offset / RING_ALIGN), Math.ceil((offset + length) / RING_ALIGN));
  }

  #reject(i: number): void {
    this.invalid++;
    // No frame lies here.
    this.#offsets[i] = 0;
  }

  #owns(sequence: number, offset: number, length: number): boolean {
    const end = Math.ceil((offset + length) / RING_ALIGN);
    for (let block = Math.floor(offset / RING_ALIGN); block < end; block++) {
      if (this.#owners[block] !== sequence) return false;
    }
    return true;
  }

  #copy(
    i: number,
    index: number,
    sequence: number,
    time: bigint,
    clock: ObserverClock,
    newest: number,
  ): void {
    const offset = this.#offsets[i]!;
    const length = this.#lengths[i]!;
    if (offset === 0) return;
    const captured = Math.min(length, this.#snapLength);
    if (this.#pendingBytes + captured > MAX_PENDING_BYTES || !this.#owns(sequence, offset, length)) {
      this.#miss(1);
      return;
    }
    const bytes = this.#bytes.slice(offset, offset + captured);
    const used = Atomics.load(this.#receiver16, this.#usedIdx);
    const avail = Atomics.load(this.#sender16, this.#availIdx);
    // Also false after a reset, which sets the index to 0.
    const isPublished = ((avail - index - 1) & U16) < 2 * this.#layout.length;
    const isInFlight = ((index - used) & U16) < this.#layout.length;
    const word = this.#descriptors[i]! * 4;
    const isSame = this.#sender32[word] === offset && this.#sender32[word + 2] === length;
    const copiedAt = clock.now();
    const isUnambiguous = copiedAt - this.#polledAt < this.#unambiguousMs();
    if (!isUnambiguous || !isPublished || (!isInFlight && !isSame)) {
      this.#miss(1);
      return;
    }
    const isSafe = isInFlight || (avail === this.#last && !this.#mayBeWritten(offset, length, newest));
    const fate = isSafe ? 'whole' : 'open';
    this.#pending.push({ bytes, length, time, sequence, offset, copiedAt, avail, fate });
    this.#pendingBytes += captured;
  }

  /** Whether the sender may be writing to a place, given the newest frame of this poll. */
  #mayBeWritten(offset: number, length: number, newest: number): boolean {
    const { data, outputSectionSize } = this.#layout;
    const head = Math.ceil((this.#offsets[newest]! + this.#lengths[newest]!) / RING_ALIGN) * RING_ALIGN;
    if (offset < head + BURST_BYTES && offset + length > head) return true;
    const turn = Math.min(Math.max(head, data + WARM_BYTES), outputSectionSize);
    return offset < data + BURST_BYTES - (turn - head);
  }

  /** Passes on, in order, what is decided. */
  #release(now: number): void {
    let decided = 0;
    for (const copy of this.#pending) {
      if (copy.fate === 'open' && now - copy.copiedAt < SETTLE_MS) break;
      const isDoubtful = copy.fate === 'open';
      decided++;
      this.#pendingBytes -= copy.bytes.length;
      if (copy.fate === 'lost') {
        this.#miss(1);
        continue;
      }
      const { bytes, length, time } = copy;
      const missedBefore = this.#missedBefore;
      this.#missedBefore = 0;
      this.#received({ bytes, length, time, missedBefore, isDoubtful });
    }
    if (decided > 0) this.#pending.splice(0, decided);
  }
}
