import { describe, expect, it } from 'vitest';
import type { Section } from './memory-layout.ts';
import { alignUp, FRAME_OVERHEAD, RING_ALIGN, type RingLayout, ringLayout } from './ring-layout.ts';
import { RxQueue } from './rx-queue.ts';

// A sender that performs its steps in the order of Linux' ivshmem-net, with our receiver. Linux requests an interrupt after
// its last read of used.idx and does not check again; and on two CPUs, its poll gives up if the transmit path holds a lock
// at that moment: in the first version while it reads completions, in later ones until it has rung for the frame. Written from these facts, not from its code.

const U16 = 0xffff;

function section(length: number): Section {
  return { address: 0, length, buffer: new ArrayBuffer(length) };
}

/** One thread of execution: others may run wherever it yields. */
type Thread = Generator<void, void>;

/** mulberry32 */
function randomNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below) | 0;
  };
}

type Version = 'first' | 'later';

class LinuxSender {
  /** The network stack may send. */
  awake = true;
  /** An interrupt is pending. */
  interrupted = false;
  sent = 0;
  readonly #own: DataView;
  readonly #peer: DataView;
  readonly #version: Version;
  readonly #layout: RingLayout;
  readonly #ring: () => void;
  /** Room for the largest frame. */
  readonly #largest: number;
  #lastUsed = 0;
  #locked = false;
  #head = 0;
  #tail = 0;
  /** Lengths of the slots in flight, oldest first. */
  readonly #inFlight: number[] = [];

  constructor(
    version: Version,
    own: Section,
    peer: Section,
    layout: RingLayout,
    mtu: number,
    ring: () => void,
  ) {
    this.#version = version;
    this.#own = new DataView(own.buffer);
    this.#peer = new DataView(peer.buffer);
    this.#layout = layout;
    this.#largest = alignUp(mtu + FRAME_OVERHEAD);
    this.#ring = ring;
  }

  get inFlight(): number {
    return this.#inFlight.length;
  }

  /** The start of a slot of `bytes` at `from` or, if it does not fit, at the front. */
  #place(from: number, bytes: number): number {
    return this.#layout.dataSize - from < bytes ? 0 : from;
  }

  /** Takes completions. The first version reads used.idx once; later ones read it and renew the request each time. */
  *#clean(): Thread {
    let used = this.#usedIdx;
    yield;
    while (this.#lastUsed !== used) {
      const bytes = this.#inFlight.shift()!;
      this.#tail = this.#place(this.#tail, bytes) + bytes;
      this.#lastUsed = (this.#lastUsed + 1) & U16;
      if (this.#version === 'first') continue;
      if (!this.#hasRoom()) this.#ask();
      yield;
      used = this.#usedIdx;
      yield;
    }
  }

  get #usedIdx(): number {
    return this.#peer.getUint16(this.#layout.used + 2, true);
  }

  /** Requests an interrupt for the next completion. */
  #ask(): void {
    const { avail, length } = this.#layout;
    this.#own.setUint16(avail + 4 + 2 * length, this.#lastUsed, true);
  }

  /** The larger of the two free ranges must have room for two of the largest frames. */
  #hasRoom(): boolean {
    const layout = this.#layout;
    const space =
      this.#head < this.#tail ? this.#tail - this.#head : Math.max(layout.dataSize - this.#head, this.#tail);
    return layout.length - this.#inFlight.length >= 2 && space >= 2 * this.#largest;
  }

  /** The transmit path. */
  *transmit(length: number): Thread {
    const first = this.#version === 'first';
    if (!this.#locked) {
      this.#locked = true;
      yield* this.#clean();
      if (first) this.#locked = false;
    }
    yield;
    if (first) yield* this.#stopWithoutRoom();
    const { avail, data, used, length: n } = this.#layout;
    const bytes = alignUp(length + FRAME_OVERHEAD);
    const from = this.#place(this.#head, bytes);
    this.#head = from + bytes;
    this.#inFlight.push(bytes);
    if (!first) yield* this.#stopWithoutRoom();
    const descriptor = this.sent % n;
    this.#own.setUint32(16 * descriptor, data + from, true);
    this.#own.setUint32(16 * descriptor + 8, length, true);
    this.#own.setUint16(avail + 4 + 2 * descriptor, descriptor, true);
    this.#own.setUint32(data + from, this.sent);
    this.#own.setUint8(data + from + length - 1, length);
    const old = this.sent++ & U16;
    this.#own.setUint16(avail + 2, this.sent & U16, true);
    yield;
    if (this.#peer.getUint16(used + 4 + 8 * n, true) === old) this.#ring();
    yield;
    if (!first) this.#locked = false;
  }

  *#stopWithoutRoom(): Thread {
    if (this.#hasRoom()) return;
    yield;
    this.#ask();
    yield;
    this.awake = false;
    yield;
  }

  /** The handler of an interrupt. */
  *poll(): Thread {
    const first = this.#version === 'first';
    if (this.#locked && !first) return;
    if (!this.#locked) {
      this.#locked = true;
      yield* this.#clean();
      if (!first && this.#hasRoom()) this.awake = true;
      this.#locked = false;
    }
    yield;
    if (first && this.#hasRoom()) this.awake = true;
  }
}

interface Outcome {
  /** Frames until all traffic stopped; Infinity: it did not. */
  readonly stalledAfter: number;
  /** How often the receiver has rung some ms after its last completion. */
  readonly reminders: number;
}

interface Setting {
  readonly cpus: 1 | 2;
  readonly version: Version;
  /** Whether the receiver rings once more some ms after its last completion. */
  readonly reminds: boolean;
  readonly layout: RingLayout;
  readonly mtu: number;
}

/** Sends `frames`, with the steps of all threads in an order that `seed` decides, and verifies what arrives. */
function run(seed: number, frames: number, { cpus, version, reminds, layout, mtu }: Setting): Outcome {
  const below = randomNumbers(seed);
  const own = section(layout.outputSectionSize);
  const peer = section(layout.outputSectionSize);
  const bytes = new DataView(peer.buffer);
  let doorbell = false;
  const sender = new LinuxSender(version, peer, own, layout, mtu, () => (doorbell = true));
  const rx = new RxQueue(own, peer, layout);
  rx.initialise();
  let arrived = 0;
  let reminders = 0;
  let reminded = true;
  let asleep = false;
  const ring = () => (sender.interrupted = true);

  function* receive(): Thread {
    let received = 0;
    for (let waiting = rx.available(); waiting > 0 && rx.next(); waiting--) {
      received++;
      const last = bytes.getUint8(rx.offset + rx.length - 1);
      if (bytes.getUint32(rx.offset) !== arrived || last !== (rx.length & 0xff)) {
        expect.fail(`frame ${arrived} is damaged`);
      }
      arrived++;
      yield;
    }
    if (rx.flush()) ring();
    yield;
    if (received > 0) reminded = false;
    if (received > 0 || !rx.waitForFrames()) return;
    yield;
    asleep = true;
  }

  let transmitting: Thread | undefined;
  let polling: Thread | undefined;
  let receiving: Thread | undefined;
  let turn = 0;
  let left = 0;
  const advance = (thread: Thread | undefined): Thread | undefined =>
    thread?.next().done ? undefined : thread;
  while (sender.sent < frames) {
    // On one CPU, the transmit path and the poll do not interrupt each other.
    const polls = cpus === 2 || transmitting === undefined;
    const transmits = cpus === 2 || polling === undefined;
    if (transmitting === undefined && sender.awake && transmits) {
      transmitting = sender.transmit(60 + below(mtu + 14 - 60 + 1));
    }
    if (polling === undefined && sender.interrupted && polls) {
      sender.interrupted = false;
      polling = sender.poll();
    }
    if (asleep && doorbell) asleep = false;
    if (receiving === undefined && !asleep) {
      doorbell = false;
      receiving = receive();
    }
    const threads = [transmitting, polling, receiving];
    if (threads.every((thread) => thread === undefined)) {
      if (!reminds || reminded || !rx.mayBeAwaited()) return { stalledAfter: sender.sent, reminders };
      // Some ms later.
      reminded = true;
      reminders++;
      ring();
      continue;
    }
    // A thread keeps the processor for a while.
    if (left-- === 0 || threads[turn] === undefined) {
      turn = below(3);
      left = 1 << below(10);
    }
    if (turn === 0) transmitting = advance(transmitting);
    else if (turn === 1) polling = advance(polling);
    else receiving = advance(receiving);
  }
  expect(rx.violation).toBe(0);
  return { stalledAfter: Number.POSITIVE_INFINITY, reminders };
}

const SEEDS = Array.from({ length: 40 }, (_, i) => i + 1);
const FRAMES = 5000;

describe.each(['first', 'later'] as const)(
  'RxQueue with a sender that is the %s version of Linux',
  (version) => {
    describe.each([1, 2] as const)('on %i CPU', (cpus) => {
      const layout = ringLayout(0x4000);
      const outcomes = (reminds: boolean) =>
        SEEDS.map((seed) => run(seed, FRAMES, { cpus, version, reminds, layout, mtu: layout.defaultMtu }));

      it('keeps it going for 200 000 frames, and rarely rings more than requested', () => {
        const all = outcomes(true);
        expect(all.filter(({ stalledAfter }) => stalledAfter < FRAMES)).toEqual([]);
        const reminders = all.reduce((sum, outcome) => sum + outcome.reminders, 0);
        expect(reminders).toBeLessThan((SEEDS.length * FRAMES) / 500);
      });

      it('would leave it waiting forever if it rang only on request', () => {
        const stalls = outcomes(false).filter(({ stalledAfter }) => stalledAfter < FRAMES);
        expect(stalls.length).toBeGreaterThan(0);
      });
    });
  },
);

describe('RxQueue with frames as Linux places them', () => {
  /** The largest MTU at which Linux' sender does not stop forever. */
  const largestMtu = (layout: RingLayout) =>
    Math.min(65521, Math.floor(Math.floor(layout.dataSize / 4) / RING_ALIGN) * RING_ALIGN - FRAME_OVERHEAD);

  it.each([0x1000, 0x2000, 0x4000, 0x10000, 0x40000, 0x100000])(
    'takes each frame once, in order and undamaged: sections of %i bytes, default and largest MTU',
    (size) => {
      const layout = ringLayout(size);
      for (const mtu of [layout.defaultMtu, largestMtu(layout)]) {
        for (const version of ['first', 'later'] as const) {
          const { stalledAfter } = run(size, 20_000, { cpus: 2, version, reminds: true, layout, mtu });
          expect(stalledAfter).toBe(Number.POSITIVE_INFINITY);
        }
      }
    },
  );

  it.each([
    [14638, Number.POSITIVE_INFINITY],
    [14688, 459],
  ])('sections of 64 KiB, MTU %i: its sender stops for good after %s small frames', (mtu, expected) => {
    const layout = ringLayout(0x10000);
    expect(largestMtu(layout)).toBe(14638);
    const own = section(layout.outputSectionSize);
    const peer = section(layout.outputSectionSize);
    const sender = new LinuxSender('later', peer, own, layout, mtu, () => {});
    const rx = new RxQueue(own, peer, layout);
    rx.initialise();
    while (sender.awake && sender.sent < 5000) {
      for (const _ of sender.transmit(42));
      for (let waiting = rx.available(); waiting > 0; waiting--) rx.next();
      rx.flush();
      for (const _ of sender.poll());
    }
    expect(sender.inFlight).toBe(0);
    expect(sender.awake ? Number.POSITIVE_INFINITY : sender.sent).toBe(expected);
  });
});
