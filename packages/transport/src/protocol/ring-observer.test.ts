import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Section } from './memory-layout.ts';
import { ringLayout } from './ring-layout.ts';
import { type ObservedFrame, RingObserver } from './ring-observer.ts';
import { RxQueue } from './rx-queue.ts';
import { TxQueue } from './tx-queue.ts';

const SIZE = 65536;
const layout = ringLayout(SIZE);
const section = (): Section => ({ address: 0, length: SIZE, buffer: new ArrayBuffer(SIZE) });

let from: Section;
let to: Section;
let tx: TxQueue;
let rx: RxQueue;
let frames: ObservedFrame[];
let observer: RingObserver;
let now: number;
const clock = { now: () => now, time: () => BigInt(Math.round(now * 1e6)) };

beforeEach(() => {
  from = section();
  to = section();
  tx = new TxQueue(from, to, layout);
  rx = new RxQueue(to, from, layout);
  tx.initialise();
  rx.initialise();
  frames = [];
  now = 1000;
  observer = new RingObserver(from, to, layout, (frame) => frames.push(frame));
});

/** Writes a frame that consists of its number, and does not publish it. */
function write(number: number, length = 100): void {
  const slot = tx.reserve(length);
  if (slot === -1) throw new Error('no room');
  new Uint8Array(from.buffer, slot, length).fill(number);
  tx.commit(length);
}

function send(...numbers: number[]): void {
  for (const number of numbers) write(number);
  tx.flush();
}

/** The receiver completes all frames, and the sender takes their places back. */
function complete(): void {
  while (rx.available() > 0) rx.next();
  rx.flush();
  tx.reclaim();
}

const numbers = () => frames.map(({ bytes }) => bytes[0]);

describe('an observer of a ring', () => {
  it('sees frames in flight at once, and does not change anything', () => {
    send(1, 2, 3);
    const contents = () => [from, to].map(({ buffer }) => Buffer.from(buffer).toString('latin1'));
    const before = contents();
    expect(observer.poll(clock)).toBe(3);
    expect(contents().map((text, i) => text === before[i])).toEqual([true, true]);
    expect(numbers()).toEqual([1, 2, 3]);
    expect(frames[0]).toMatchObject({ length: 100, time: 1_000_000_000n, missedBefore: 0 });
    expect(observer.poll(clock)).toBe(0);
    expect(observer).toMatchObject({ missed: 0, invalid: 0 });
  });

  it('reports a completed frame once nothing has been published in its place', () => {
    send(1);
    complete();
    observer.poll(clock);
    expect([numbers(), observer.unsettledSince]).toEqual([[], 1_000_000_000n]);
    // The next frame lies elsewhere.
    send(2);
    observer.poll(clock);
    expect(numbers()).toEqual([1, 2]);
    complete();
    send(3);
    complete();
    observer.poll(clock);
    now += 0.5;
    observer.poll(clock);
    expect(numbers()).toEqual([1, 2]);
    now += 25;
    observer.poll(clock);
    expect(numbers()).toEqual([1, 2, 3]);
    expect(frames.map(({ isDoubtful }) => isDoubtful)).toEqual([false, false, true]);
    expect(observer).toMatchObject({ missed: 0, unsettledSince: null });
  });

  it('reports no frame that may have been overwritten while it was copied', () => {
    send(1);
    complete();
    observer.poll(clock);
    // Fills the data area, so that one of the next frames lies in the place of the first.
    for (let i = 2; i < 2 + layout.length; i++) {
      write(i & 0xff, 1000);
      tx.flush();
      complete();
    }
    observer.poll(clock);
    now += 25;
    observer.poll(clock);
    expect(frames.map(({ length }) => length)).not.toContain(100);
    expect(observer.missed).toBeGreaterThan(1);
    expect(frames[0]!.missedBefore + frames.length).toBe(layout.length + 1);
    for (const { bytes } of frames) expect(new Set(bytes).size).toBe(1);
  });

  it('counts frames that it was too late for', () => {
    for (let i = 0; i < 3 * layout.length; i++) {
      send(i & 0xff);
      complete();
    }
    expect(observer.poll(clock)).toBe(3 * layout.length);
    now += 25;
    observer.poll(clock);
    expect(observer.missed + frames.length).toBe(3 * layout.length);
    expect(numbers().at(-1)).toBe((3 * layout.length - 1) & 0xff);
  });

  it('does not take an index for that of 65536 frames before', () => {
    send(1);
    observer.poll(clock);
    let step = 0;
    // The reader is interrupted for a second in the middle of a poll, while frames pass until the indices are the same again.
    const slow = { ...clock, now: () => (step++ === 0 ? now : now + 1000) };
    send(2, 3);
    observer.poll(slow);
    expect([numbers(), observer.missed]).toEqual([[1], 2]);
    now += 2000;
    send(4);
    complete();
    observer.poll(clock);
    // And between two polls, before the frame is known to be whole.
    now += 0.5;
    const { buffer } = from;
    now += 1000;
    new Uint8Array(buffer, layout.data).fill(99);
    send(5);
    observer.poll(clock);
    expect([numbers(), observer.missed]).toEqual([[1, 5], 3]);
  });

  it('follows the rings when they begin again', () => {
    send(1, 2);
    observer.poll(clock);
    send(3);
    observer.finish(clock);
    tx.initialise();
    rx.initialise();
    observer.restart();
    send(4);
    observer.poll(clock);
    expect(numbers()).toEqual([1, 2, 3, 4]);
    expect(observer.missed).toBe(0);
    // This time it is too late for what is left.
    send(5);
    tx.initialise();
    observer.finish(clock);
    expect(observer.missed).toBe(0);
    expect(frames).toHaveLength(4);
  });

  it('copies only the beginning of a frame with a limit', () => {
    observer = new RingObserver(from, to, layout, (frame) => frames.push(frame), 14);
    send(1);
    observer.poll(clock);
    expect(frames[0]).toMatchObject({ bytes: new Uint8Array(14).fill(1), length: 100 });
  });

  it('knows whether the receiver has requested a doorbell', () => {
    expect(observer.willRing).toBe(true);
    send(1);
    observer.poll(clock);
    complete();
    expect(observer.willRing).toBe(false);
    rx.waitForFrames();
    expect(observer.willRing).toBe(true);
  });

  it('counts descriptors that no receiver accepts, and reads nothing outside of the data area', () => {
    const words = new Uint32Array(from.buffer);
    const set = (offset: number, length: number, flags = 0, high = 0) => {
      write(1);
      words.set([offset, high, length, flags], 4 * (tx.inFlight - 1));
    };
    set(SIZE - 50, 100);
    set(0, 100);
    set(layout.data - 1, 100);
    set(0xffffffff, 0xffffffff);
    set(layout.data, 0xffffffff);
    set(layout.data, 100, 1);
    set(layout.data, 100, 0, 1);
    set(layout.data, 77);
    tx.flush();
    new Uint16Array(from.buffer)[layout.avail / 2 + 2 + 7] = 7;
    observer.poll(clock);
    expect(observer).toMatchObject({ invalid: 7, missed: 0 });
    expect(frames.map(({ length }) => length)).toEqual([77]);
  });

  it('survives any contents of both sections', () => {
    const garbage = fc.array(fc.integer({ min: 0, max: 0xffff }), { minLength: 8, maxLength: 64 });
    fc.assert(
      fc.property(fc.array(garbage, { minLength: 1, maxLength: 8 }), (rounds) => {
        frames = [];
        for (const words of rounds) {
          for (const { buffer } of [from, to]) {
            const ring = new Uint16Array(buffer, 0, layout.data / 2);
            for (let i = 0; i < ring.length; i++) ring[i] = words[((i * 7 + i / 64) % words.length) | 0]!;
          }
          now += 0.7;
          observer.poll(clock);
        }
        for (const { bytes, length } of frames) {
          expect(bytes.length).toBe(length);
          expect(length).toBeLessThanOrEqual(layout.dataSize);
        }
      }),
      { numRuns: 200 },
    );
  });
});
