import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Section } from './memory-layout.ts';
import { alignUp, FRAME_OVERHEAD, type RingLayout, ringLayout } from './ring-layout.ts';
import { RxQueue } from './rx-queue.ts';
import { TxQueue } from './tx-queue.ts';
import { Violation } from './violation.ts';

// Peers that follow the protocol page, but differ from ours in all it leaves open: the order of descriptors, the place of
// frames, the content of unused fields, when to ring and when to request it. Written from the page alone, on a DataView,
// so that they share only the layout with the queues.

const section = (length: number): Section => ({ address: 0, length, buffer: new ArrayBuffer(length) });

interface SenderHabits {
  /** Which free descriptor comes next. */
  readonly descriptors: 'first-freed' | 'last-freed' | 'lowest';
  /** The value of `next`, which links a free list. */
  readonly links: boolean;
  /** The place of a frame: slots of align64(len + 18) in a circle, or byte by byte from the end downwards. */
  readonly slots: 'circle' | 'downwards';
}

class ForeignSender {
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #peer: DataView;
  readonly #layout: RingLayout;
  readonly #habits: SenderHabits;
  readonly #free: number[];
  /** In flight, oldest first. */
  readonly #sent: { descriptor: number; from: number; to: number }[] = [];
  #availIdx = 0;
  #usedIdx = 0;
  #position: number;

  constructor(own: Section, peer: Section, layout: RingLayout, habits: SenderHabits) {
    this.#view = new DataView(own.buffer);
    this.#bytes = new Uint8Array(own.buffer);
    this.#peer = new DataView(peer.buffer);
    this.#layout = layout;
    this.#habits = habits;
    this.#free = Array.from({ length: layout.length }, (_, i) => i);
    this.#position = habits.slots === 'circle' ? layout.data : layout.outputSectionSize;
  }

  /** Takes completions; they must name the descriptors in the order in which they were offered. */
  reclaim(): number {
    const { used, length } = this.#layout;
    const target = this.#peer.getUint16(used + 2, true);
    let count = 0;
    for (; this.#usedIdx !== target; this.#usedIdx = (this.#usedIdx + 1) & 0xffff) {
      const entry = used + 4 + 8 * (this.#usedIdx % length);
      const oldest = this.#sent.shift();
      const [id, len] = [this.#peer.getUint32(entry, true), this.#peer.getUint32(entry + 4, true)];
      if (id !== oldest?.descriptor || len !== 1) {
        expect.fail(`completion {${id}, ${len}} of descriptor ${oldest?.descriptor}`);
      }
      this.#free.push(oldest!.descriptor);
      count++;
    }
    return count;
  }

  #place(length: number): number {
    const { data, outputSectionSize } = this.#layout;
    let from: number;
    let to: number;
    if (this.#habits.slots === 'circle') {
      from = this.#position + alignUp(length + FRAME_OVERHEAD) > outputSectionSize ? data : this.#position;
      to = from + alignUp(length + FRAME_OVERHEAD);
    } else {
      to = this.#position - length < data ? outputSectionSize : this.#position;
      from = to - length;
    }
    if (this.#sent.some((frame) => from < frame.to && frame.from < to)) return -1;
    this.#position = this.#habits.slots === 'circle' ? to : from;
    return from;
  }

  /** Offers a frame; false if there is no room. */
  send(frame: Uint8Array): boolean {
    if (this.#free.length === 0) return false;
    const from = this.#place(frame.length);
    if (from === -1) return false;
    if (this.#habits.descriptors === 'lowest') this.#free.sort((a, b) => b - a);
    const descriptor = this.#habits.descriptors === 'first-freed' ? this.#free.shift()! : this.#free.pop()!;
    const to =
      this.#habits.slots === 'circle' ? from + alignUp(frame.length + FRAME_OVERHEAD) : from + frame.length;
    this.#sent.push({ descriptor, from, to });
    this.#bytes.set(frame, from);
    this.#view.setBigUint64(16 * descriptor, BigInt(from), true);
    this.#view.setUint32(16 * descriptor + 8, frame.length, true);
    this.#view.setUint16(16 * descriptor + 12, 0, true);
    if (this.#habits.links) this.#view.setUint16(16 * descriptor + 14, this.#free.at(-1) ?? 0xffff, true);
    const { avail, length } = this.#layout;
    this.#view.setUint16(avail + 4 + 2 * (this.#availIdx % length), descriptor, true);
    this.#availIdx = (this.#availIdx + 1) & 0xffff;
    this.#view.setUint16(avail + 2, this.#availIdx, true);
    return true;
  }

  /** Requests an interrupt for every completion. */
  askAlways(): void {
    this.#view.setUint16(this.#layout.avail + 4 + 2 * this.#layout.length, this.#usedIdx, true);
  }
}

const frameOf = (number: number, length: number) =>
  Uint8Array.from({ length }, (_, i) => (number * 13 + i * 3) & 0xff);
/** Steps of the foreign side and of ours; sizes as fractions of the largest frame. */
const steps = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.double({ min: 0.02, max: 1, noNaN: true }) },
    { weight: 2, arbitrary: fc.constantFrom('take', 'flush', 'reclaim') },
  ),
  { minLength: 50, maxLength: 400, size: 'max' },
);
const sizes = [0x1000, 0x4000, 0x10000] as const;

describe('RxQueue with a sender of other habits', () => {
  const habits = fc.record<SenderHabits>({
    descriptors: fc.constantFrom('first-freed', 'last-freed', 'lowest'),
    links: fc.boolean(),
    slots: fc.constantFrom('circle', 'downwards'),
  });

  it.each(sizes)('receives its frames in order, once, undamaged: sections of %i bytes', (size) => {
    const layout = ringLayout(size);
    fc.assert(
      fc.property(habits, steps, fc.boolean(), (habit, plan, small) => {
        const theirs = section(size);
        const ours = section(size);
        const sender = new ForeignSender(theirs, ours, layout, habit);
        const rx = new RxQueue(ours, theirs, layout);
        rx.initialise();
        const largest = small ? 200 : layout.maxMtu + FRAME_OVERHEAD;
        const expected: Uint8Array[] = [];
        let number = 0;
        const take = (most: number) => {
          for (let n = Math.min(rx.available(), most); n > 0; n--) {
            expect(rx.next()).toBe(true);
            const found = new Uint8Array(theirs.buffer, rx.offset, rx.length);
            expect(Buffer.compare(found, expected.shift()!)).toBe(0);
          }
        };
        for (const step of plan) {
          if (typeof step === 'number') {
            const frame = frameOf(number, Math.max(14, Math.floor(step * largest)));
            if (!sender.send(frame)) continue;
            expected.push(frame);
            number++;
          } else if (step === 'take') take(3);
          else if (step === 'flush') rx.flush();
          else sender.reclaim();
        }
        take(layout.length);
        rx.flush();
        sender.reclaim();
        expect({ left: expected.length, violation: rx.violation }).toEqual({
          left: 0,
          violation: Violation.NONE,
        });
      }),
      { numRuns: 60 },
    );
  });

  it('rings for every batch of completions if the sender always requests it', () => {
    const layout = ringLayout(0x1000);
    const [theirs, ours] = [section(0x1000), section(0x1000)];
    const sender = new ForeignSender(theirs, ours, layout, {
      descriptors: 'last-freed',
      links: true,
      slots: 'circle',
    });
    const rx = new RxQueue(ours, theirs, layout);
    rx.initialise();
    for (let frames = 0; frames < 66_000; frames += 3) {
      sender.askAlways();
      for (let i = 0; i < 3; i++) if (!sender.send(frameOf(i, 60))) expect.fail('no room');
      for (let n = rx.available(); n > 0; n--) rx.next();
      if (!rx.flush()) expect.fail(`no doorbell after ${frames} frames`);
      if (sender.reclaim() !== 3) expect.fail('not all came back');
    }
  });
});

describe('TxQueue with a receiver of other habits', () => {
  /** Takes the offered frames, and completes up to `most` of them; `asks`: whether it requests an interrupt each time. */
  function foreignReceiver(own: Section, peer: Section, layout: RingLayout, asks: boolean) {
    const ownView = new DataView(own.buffer);
    const peerView = new DataView(peer.buffer);
    let last = 0;
    return (most: number): Uint8Array[] => {
      const frames: Uint8Array[] = [];
      const target = peerView.getUint16(layout.avail + 2, true);
      for (; last !== target && frames.length < most; last = (last + 1) & 0xffff) {
        const position = last % layout.length;
        const descriptor = peerView.getUint16(layout.avail + 4 + 2 * position, true);
        const addr = Number(peerView.getBigUint64(16 * descriptor, true));
        const len = peerView.getUint32(16 * descriptor + 8, true);
        expect(peerView.getUint16(16 * descriptor + 12, true)).toBe(0);
        frames.push(new Uint8Array(peer.buffer.slice(addr, addr + len)));
        ownView.setUint32(layout.used + 4 + 8 * position, descriptor, true);
        ownView.setUint32(layout.used + 8 + 8 * position, 1, true);
        ownView.setUint16(layout.used + 2, (last + 1) & 0xffff, true);
      }
      if (asks) ownView.setUint16(layout.used + 4 + 8 * layout.length, last, true);
      return frames;
    };
  }

  it.each(sizes)('sends frames that arrive unchanged: sections of %i bytes', (size) => {
    const layout = ringLayout(size);
    fc.assert(
      fc.property(steps, fc.nat(layout.length), fc.boolean(), (plan, most, small) => {
        const ours = section(size);
        const theirs = section(size);
        const tx = new TxQueue(ours, theirs, layout);
        tx.initialise();
        const receive = foreignReceiver(theirs, ours, layout, true);
        const largest = small ? 200 : layout.maxMtu + FRAME_OVERHEAD;
        const expected: Uint8Array[] = [];
        const compare = (frames: Uint8Array[]) => {
          for (const frame of frames) expect(Buffer.compare(frame, expected.shift()!)).toBe(0);
        };
        for (const [number, step] of plan.entries()) {
          if (typeof step === 'number') {
            const slot = tx.reserve(largest);
            if (slot === -1) continue;
            const frame = frameOf(number, Math.max(14, Math.floor(step * largest)));
            new Uint8Array(ours.buffer).set(frame, slot);
            tx.commit(frame.length);
            expected.push(frame);
          } else if (step === 'take') compare(receive(most));
          else if (step === 'flush') tx.flush();
          else tx.reclaim();
        }
        tx.flush();
        compare(receive(layout.length));
        tx.reclaim();
        expect({ left: expected.length, inFlight: tx.inFlight, violation: tx.violation }).toEqual({
          left: 0,
          inFlight: 0,
          violation: Violation.NONE,
        });
      }),
      { numRuns: 60 },
    );
  });

  it('rings for each batch if the receiver always requests it, and only for the first if it never does', () => {
    const layout = ringLayout(0x1000);
    for (const asks of [true, false]) {
      const [ours, theirs] = [section(0x1000), section(0x1000)];
      const tx = new TxQueue(ours, theirs, layout);
      tx.initialise();
      const receive = foreignReceiver(theirs, ours, layout, asks);
      let rings = 0;
      for (let batches = 0; batches < 1000; batches++) {
        for (let i = 0; i < 4; i++) if (tx.reserve(60) !== -1) tx.commit(60);
        if (tx.flush()) rings++;
        receive(4);
        tx.reclaim();
      }
      expect(rings).toBe(asks ? 1000 : 1);
    }
  });
});

describe('queues of a survivor whose peer clears its section', () => {
  // Zephyr clears its rings when it starts, cRTOS its whole section, and the host server that of a peer that has died:
  // the survivor's data path may still run.
  it.each(sizes)(
    'find a violation or nothing, and no frame that was not sent: sections of %i bytes',
    (size) => {
      const layout = ringLayout(size);
      fc.assert(
        fc.property(fc.nat(3 * layout.length), fc.nat(layout.length), fc.boolean(), (before, left, all) => {
          const [ours, theirs] = [section(size), section(size)];
          const [tx, rx] = [new TxQueue(ours, theirs, layout), new RxQueue(ours, theirs, layout)];
          const [peerTx, peerRx] = [new TxQueue(theirs, ours, layout), new RxQueue(theirs, ours, layout)];
          for (const queue of [tx, rx, peerTx, peerRx]) queue.initialise();
          const pass = (from: TxQueue, to: RxQueue, completes: boolean) => {
            if (from.reserve(14) === -1) return;
            from.commit(14);
            from.flush();
            if (!completes) return;
            for (let waiting = to.available(); waiting > 0; waiting--) to.next();
            to.flush();
            from.reclaim();
          };
          for (let frames = 0; frames < before; frames++) {
            pass(tx, peerRx, true);
            pass(peerTx, rx, true);
          }
          // Some frames of either side are still in flight.
          for (let frames = 0; frames < left; frames++) {
            pass(tx, peerRx, false);
            pass(peerTx, rx, false);
          }
          new Uint8Array(theirs.buffer, 0, all ? size : layout.data).fill(0);
          // An index that has gone back may look like frames on offer, but their descriptors are zeros.
          while (rx.available() > 0 && rx.next())
            expect.fail(`a frame of ${rx.length} bytes at ${rx.offset}`);
          const inFlight = tx.inFlight;
          if (tx.reclaim() === 0) expect(tx.inFlight).toBe(inFlight);
          tx.waitForRoom(14);
          rx.waitForFrames();
          for (const { violation } of [tx, rx]) {
            expect([
              Violation.NONE,
              Violation.AVAIL_INDEX,
              Violation.USED_INDEX,
              Violation.USED_ID,
              Violation.USED_LENGTH,
              Violation.DESCRIPTOR_RANGE,
            ]).toContain(violation);
          }
        }),
        { numRuns: 60 },
      );
    },
  );
});
