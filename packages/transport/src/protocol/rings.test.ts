import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Section } from './memory-layout.ts';
import { FRAME_OVERHEAD, MIN_FRAME, type RingLayout, ringLayout } from './ring-layout.ts';
import { RxQueue } from './rx-queue.ts';
import { TxQueue } from './tx-queue.ts';
import { Violation } from './violation.ts';

const section = (length: number): Section => ({ address: 0, length, buffer: new ArrayBuffer(length) });

/** A frame in the model: its number in the order of sending, and its slot. */
interface Frame {
  readonly number: number;
  readonly slot: number;
  readonly length: number;
}

/** What frame `number` has at position `i`. */
const pattern = (number: number, i: number) => (number * 31 + i * 7 + (i >> 8)) & 0xff;

/**
 * One direction of a link, sender and receiver, beside a model of it: lists of frames by stage. A side that has gone to
 * sleep does nothing until it is rung. All invariants are checked with each step.
 */
class Direction {
  readonly layout: RingLayout;
  readonly #from: Section;
  readonly #tx: TxQueue;
  readonly #rx: RxQueue;
  /** Committed and not flushed; flushed and not taken; taken and not completed; completed and not reclaimed. */
  #committed: Frame[] = [];
  #offered: Frame[] = [];
  #held: Frame[] = [];
  #returned = 0;
  #number = 0;
  senderSleeps = false;
  receiverSleeps = false;
  delivered = 0;

  constructor(size: number) {
    this.layout = ringLayout(size);
    this.#from = section(size);
    const to = section(size);
    this.#tx = new TxQueue(this.#from, to, this.layout);
    this.#rx = new RxQueue(to, this.#from, this.layout);
    this.#tx.initialise();
    this.#rx.initialise();
  }

  /** Commits a frame of `length` bytes in a slot that was reserved for `reserved`. Returns whether there was room. */
  send(length: number, reserved: number): boolean {
    const slot = this.#tx.reserve(reserved);
    const inFlight = [...this.#held, ...this.#offered, ...this.#committed];
    if (slot === -1) {
      if (inFlight.length + this.#returned === 0)
        expect.fail(`no room for ${reserved} bytes in an empty ring`);
      return false;
    }
    const { data, outputSectionSize } = this.layout;
    if (slot < data || slot + reserved > outputSectionSize) expect.fail(`slot ${slot} for ${reserved} bytes`);
    for (const frame of inFlight) {
      if (slot < frame.slot + frame.length && frame.slot < slot + reserved) {
        expect.fail(`slot ${slot} for ${reserved} bytes overlaps ${JSON.stringify(frame)}`);
      }
    }
    const number = this.#number++;
    const bytes = new Uint8Array(this.#from.buffer, slot, length);
    for (let i = 0; i < length; i++) bytes[i] = pattern(number, i);
    this.#tx.commit(length);
    this.#committed.push({ number, slot, length });
    return true;
  }

  flushSent(): void {
    const shown = this.#committed.length > 0;
    const ring = this.#tx.flush();
    this.#offered.push(...this.#committed);
    this.#committed = [];
    if (this.receiverSleeps && shown && !ring)
      expect.fail('frames for a receiver that sleeps, and no doorbell');
    if (ring) this.receiverSleeps = false;
  }

  take(most: number): void {
    const available = this.#rx.available();
    expect(available).toBe(this.#offered.length);
    for (let n = Math.min(available, most); n > 0; n--) {
      if (!this.#rx.next())
        expect.fail(`violation ${this.#rx.violation} by a sender that keeps to the protocol`);
      const frame = this.#offered.shift()!;
      if (this.#rx.length !== frame.length || this.#rx.offset !== frame.slot) expect.fail('another frame');
      const bytes = new Uint8Array(this.#from.buffer, this.#rx.offset, this.#rx.length);
      for (let i = 0; i < bytes.length; i++) {
        if (bytes[i] !== pattern(frame.number, i)) expect.fail(`frame ${frame.number} is damaged at ${i}`);
      }
      this.#held.push(frame);
      this.delivered++;
    }
  }

  flushTaken(): void {
    const ring = this.#rx.flush();
    this.#returned += this.#held.length;
    this.#held = [];
    if (ring) this.senderSleeps = false;
    const nothingLeft = this.#offered.length === 0 && this.#returned > 0;
    if (this.senderSleeps && nothingLeft) expect.fail('all frames are back, and the sender sleeps on');
  }

  reclaim(): void {
    expect(this.#tx.reclaim()).toBe(this.#returned);
    this.#returned = 0;
    expect(this.#tx.violation).toBe(Violation.NONE);
    expect(this.#tx.inFlight).toBe(this.#held.length + this.#offered.length + this.#committed.length);
  }

  sleepUntilRoom(length: number): void {
    this.flushSent();
    this.senderSleeps = this.#tx.waitForRoom(length);
    this.#returned = 0;
    if (this.senderSleeps) expect(this.#tx.inFlight).toBeGreaterThan(0);
  }

  sleepUntilFrames(): void {
    this.flushTaken();
    this.receiverSleeps = this.#rx.waitForFrames();
    expect(this.receiverSleeps).toBe(this.#offered.length === 0);
  }

  /** Runs both sides until all frames have arrived, and neither has work left. */
  settle(): void {
    this.flushSent();
    for (let rounds = 0; this.#tx.inFlight > 0; rounds++) {
      if (rounds > 3) expect.fail('frames are stuck');
      if (!this.receiverSleeps) this.take(this.layout.length);
      this.flushTaken();
      this.reclaim();
    }
    expect(this.delivered).toBe(this.#number);
  }
}

type Step =
  | { readonly type: 'send'; readonly size: number; readonly spare: number }
  | { readonly type: 'take'; readonly most: number }
  | { readonly type: 'sleepUntilRoom' }
  | { readonly type: 'flushSent' | 'flushTaken' | 'reclaim' | 'sleepUntilFrames' };

/** Sizes are fractions of the range from the smallest to the largest frame, so that a step fits every section. */
const size = fc.oneof(
  fc.constantFrom(0, 1),
  fc.double({ min: 0, max: 0.1, noNaN: true }),
  fc.double({ min: 0, max: 1, noNaN: true }),
);
const steps = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        type: fc.constant('send' as const),
        size,
        spare: fc.oneof(fc.constant(0), size),
      }),
    },
    { weight: 2, arbitrary: fc.record({ type: fc.constant('take' as const), most: fc.nat(8) }) },
    { weight: 2, arbitrary: fc.constant({ type: 'flushSent' as const }) },
    { weight: 2, arbitrary: fc.constant({ type: 'flushTaken' as const }) },
    { weight: 1, arbitrary: fc.constant({ type: 'reclaim' as const }) },
    { weight: 1, arbitrary: fc.constant({ type: 'sleepUntilRoom' as const }) },
    { weight: 1, arbitrary: fc.constant({ type: 'sleepUntilFrames' as const }) },
  ),
  { minLength: 20, maxLength: 300, size: 'max' },
);

function run(direction: Direction, plan: readonly Step[], mtu: number): void {
  const largest = mtu + FRAME_OVERHEAD;
  const bytes = (fraction: number) => MIN_FRAME + Math.floor(fraction * (largest - MIN_FRAME));
  for (const step of plan) {
    const { type } = step;
    const ofReceiver = type === 'take' || type === 'flushTaken' || type === 'sleepUntilFrames';
    if (ofReceiver ? direction.receiverSleeps : direction.senderSleeps) continue;
    if (type === 'send') {
      const length = bytes(step.size);
      direction.send(length, Math.max(length, bytes(step.spare)));
    } else if (type === 'take') direction.take(step.most);
    else if (type === 'sleepUntilRoom') direction.sleepUntilRoom(largest + 1);
    else direction[type]();
  }
  direction.settle();
}

describe('TxQueue and RxQueue together', () => {
  it.each([
    [0x1000, 300],
    [0x2000, 200],
    [0x4000, 200],
    [0x10000, 50],
    [0x7f000, 30],
    [0x100000, 20],
    [0x400000, 10],
  ])(
    'carry frames in order, once, undamaged, and wake who sleeps: sections of %i bytes',
    (length, numRuns) => {
      const { defaultMtu, maxMtu } = ringLayout(length);
      fc.assert(
        fc.property(steps, fc.boolean(), (plan, large) => {
          run(new Direction(length), plan, large ? maxMtu : Math.min(defaultMtu, 1500));
        }),
        { numRuns },
      );
    },
  );

  it.each([0x1000, 0x4000, 0x10000])('continue when the indices wrap: sections of %i bytes', (length) => {
    const direction = new Direction(length);
    const plans = fc.sample(steps, { numRuns: 40, seed: length });
    for (let i = 0; direction.delivered <= 70_000; i++) {
      run(direction, plans[i % plans.length]!, 68);
      // Batches that fill the queue, so that the wrap falls into one.
      for (let sent = 0; sent < direction.layout.length && direction.send(14, 14); sent++);
      direction.settle();
    }
  });
});
