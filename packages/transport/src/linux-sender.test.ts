import { describe, expect, it } from 'vitest';
import type { Section } from './port.ts';
import { alignUp, FRAME_OVERHEAD, ringLayout } from './ring-layout.ts';
import { RxQueue } from './rx-queue.ts';

// A sender that takes its steps in the order in which Linux' ivshmem-net takes them, and a receiver that is ours. Linux
// asks for an interrupt after its last look at used.idx and does not look again; and on two CPUs, its poll gives up when
// the transmit path holds the lock at that moment. Written from these facts, not from its code.

const SECTION = 0x4000;
const layout = ringLayout(SECTION);
const MTU = layout.defaultMtu;
const SLOT = alignUp(MTU + FRAME_OVERHEAD);
const U16 = 0xffff;

/** One thread of execution: others may come wherever it yields. */
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

class LinuxSender {
  /** The network stack may send. */
  awake = true;
  /** An interrupt is pending. */
  interrupted = false;
  sent = 0;
  readonly #own: DataView;
  readonly #peer: DataView;
  readonly #ring: () => void;
  #lastUsed = 0;
  #locked = false;
  #head = 0;
  #tail = 0;
  /** Lengths of the slots in flight, oldest first. */
  readonly #inFlight: number[] = [];

  constructor(own: Section, peer: Section, ring: () => void) {
    this.#own = new DataView(own.buffer);
    this.#peer = new DataView(peer.buffer);
    this.#ring = ring;
  }

  /** The start of a slot of `bytes` at `from` or, if it does not fit, at the front. */
  #place(from: number, bytes: number): number {
    return layout.dataSize - from < bytes ? 0 : from;
  }

  *#clean(): Thread {
    if (this.#locked) return;
    this.#locked = true;
    const used = this.#peer.getUint16(layout.used + 2, true);
    yield;
    for (; this.#lastUsed !== used; this.#lastUsed = (this.#lastUsed + 1) & U16) {
      const bytes = this.#inFlight.shift()!;
      this.#tail = this.#place(this.#tail, bytes) + bytes;
    }
    yield;
    this.#locked = false;
  }

  /** The larger of the two stretches has to have room for two of the largest frames. */
  #hasRoom(): boolean {
    const space =
      this.#head < this.#tail ? this.#tail - this.#head : Math.max(layout.dataSize - this.#head, this.#tail);
    return layout.length - this.#inFlight.length >= 2 && space >= 2 * SLOT;
  }

  /** The transmit path. */
  *transmit(length: number): Thread {
    yield* this.#clean();
    yield;
    if (!this.#hasRoom()) {
      yield;
      this.#own.setUint16(layout.avail + 4 + 2 * layout.length, this.#lastUsed, true);
      yield;
      this.awake = false;
    }
    yield;
    const bytes = alignUp(length + FRAME_OVERHEAD);
    const from = this.#place(this.#head, bytes);
    this.#head = from + bytes;
    this.#inFlight.push(bytes);
    const descriptor = this.sent % layout.length;
    this.#own.setUint32(16 * descriptor, layout.data + from, true);
    this.#own.setUint32(16 * descriptor + 8, length, true);
    this.#own.setUint16(layout.avail + 4 + 2 * descriptor, descriptor, true);
    const old = this.sent++ & U16;
    this.#own.setUint16(layout.avail + 2, this.sent & U16, true);
    yield;
    if (this.#peer.getUint16(layout.used + 4 + 8 * layout.length, true) === old) this.#ring();
  }

  /** What an interrupt leads to. */
  *poll(): Thread {
    yield* this.#clean();
    yield;
    if (this.#hasRoom()) this.awake = true;
  }
}

/** What the receiver does for a sender that asks too late. */
interface Care {
  readonly beforeSleep: boolean;
  readonly afterSleep: boolean;
}

interface Outcome {
  /** Frames until everything stood still for good; Infinity: it did not. */
  readonly stalledAfter: number;
  readonly late: number;
  readonly second: number;
}

/** Sends `frames`, with the steps of all threads in an order that `seed` decides. */
function run(seed: number, frames: number, cpus: 1 | 2, care: Care): Outcome {
  const below = randomNumbers(seed);
  const own: Section = { address: 0, length: SECTION, buffer: new ArrayBuffer(SECTION) };
  const peer: Section = { address: 0, length: SECTION, buffer: new ArrayBuffer(SECTION) };
  let doorbell = false;
  const sender = new LinuxSender(peer, own, () => (doorbell = true));
  const rx = new RxQueue(own, peer, layout);
  rx.initialise();
  let late = 0;
  let second = 0;
  let asleep = false;
  let limited = false;
  const ring = () => (sender.interrupted = true);

  function* receive(): Thread {
    let received = 0;
    for (let waiting = rx.available(); waiting > 0 && rx.next(); waiting--) {
      received++;
      yield;
    }
    if (rx.flush()) ring();
    yield;
    if (received > 0 || !rx.waitForFrames()) return;
    yield;
    if (care.beforeSleep && rx.askedTooLate()) {
      late++;
      ring();
    }
    limited = care.afterSleep && rx.ringIsOwed();
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
      transmitting = sender.transmit(60 + below(MTU + 14 - 60 + 1));
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
      if (!limited) return { stalledAfter: sender.sent, late, second };
      // Some ms later.
      limited = false;
      second++;
      rx.rung();
      ring();
      continue;
    }
    // Whoever has the processor keeps it for a while.
    if (left-- === 0 || threads[turn] === undefined) {
      turn = below(3);
      left = 1 << below(10);
    }
    if (turn === 0) transmitting = advance(transmitting);
    else if (turn === 1) polling = advance(polling);
    else receiving = advance(receiving);
  }
  expect(rx.violation).toBe(0);
  return { stalledAfter: Number.POSITIVE_INFINITY, late, second };
}

const SEEDS = Array.from({ length: 40 }, (_, i) => i + 1);
const FRAMES = 5000;

describe('RxQueue with a sender that asks for interrupts too late', () => {
  const totals = (cpus: 1 | 2, care: Care) => {
    const outcomes = SEEDS.map((seed) => run(seed, FRAMES, cpus, care));
    return {
      stalls: outcomes.filter(({ stalledAfter }) => stalledAfter < FRAMES).length,
      late: outcomes.reduce((sum, outcome) => sum + outcome.late, 0),
      second: outcomes.reduce((sum, outcome) => sum + outcome.second, 0),
    };
  };

  describe.each([1, 2] as const)('on %i CPU', (cpus) => {
    it('keeps it going for 200 000 frames, with few interrupts more', () => {
      const { stalls, late, second } = totals(cpus, { beforeSleep: true, afterSleep: true });
      expect(stalls).toBe(0);
      expect(late + second).toBeLessThan((SEEDS.length * FRAMES) / 1000);
    });

    it('would leave it waiting for good without the look before the sleep and the interrupt after it', () => {
      expect(totals(cpus, { beforeSleep: false, afterSleep: false }).stalls).toBeGreaterThan(10);
    });

    it('would leave it waiting for good without the interrupt after it', () => {
      expect(totals(cpus, { beforeSleep: true, afterSleep: false }).stalls).toBeGreaterThan(0);
    });
  });
});
