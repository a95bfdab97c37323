import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Section } from './memory-layout.ts';
import { type RingLayout, ringLayout } from './ring-layout.ts';
import { RxQueue } from './rx-queue.ts';
import { TxQueue } from './tx-queue.ts';
import { Violation, violationText } from './violation.ts';

const asSection = (buffer: ArrayBufferLike): Section => ({
  address: 0,
  length: buffer.byteLength,
  buffer: buffer as ArrayBuffer,
});

/**
 * Both queues of the honest side, used as a link uses them. Whatever the peer's section holds, every offset that they
 * return must lie in the data areas, and a queue that has found a violation must do nothing more.
 */
class HonestSide {
  readonly tx: TxQueue;
  readonly rx: RxQueue;
  readonly violations = new Set<Violation>();
  received = 0;
  sent = 0;
  readonly #layout: RingLayout;
  readonly #own: Section;
  readonly #peer: Section;

  constructor(own: Section, peer: Section, layout: RingLayout) {
    this.#layout = layout;
    this.#own = own;
    this.#peer = peer;
    this.tx = new TxQueue(own, peer, layout);
    this.rx = new RxQueue(own, peer, layout);
    this.tx.initialise();
    this.rx.initialise();
  }

  #inside(offset: number, length: number): boolean {
    const { data, outputSectionSize } = this.#layout;
    return Number.isInteger(offset) && offset >= data && length >= 0 && offset + length <= outputSectionSize;
  }

  /** One turn of a link: receive, send, flush both, go to sleep. Returns false if it had to be reset. */
  turn(frame: number): boolean {
    const { tx, rx } = this;
    let taken = 0;
    for (let n = Math.min(rx.available(), 64); n > 0 && rx.next(); n--) {
      if (!this.#inside(rx.offset, rx.length)) expect.fail(`frame of ${rx.length} bytes at ${rx.offset}`);
      const bytes = new Uint8Array(this.#peer.buffer, rx.offset, rx.length);
      if (bytes.length !== rx.length) expect.fail(`frame of ${rx.length} bytes leaves the section`);
      taken++;
    }
    this.received += taken;
    tx.reclaim();
    for (let i = 0; i < 8; i++) {
      const slot = tx.reserve(frame);
      if (slot === -1) break;
      if (!this.#inside(slot, frame)) expect.fail(`slot at ${slot}`);
      new Uint8Array(this.#own.buffer, slot, frame).fill(0x5a);
      tx.commit(frame);
      this.sent++;
    }
    if (tx.inFlight > this.#layout.length) expect.fail(`${tx.inFlight} frames in flight`);
    rx.flush();
    tx.flush();
    rx.waitForFrames();
    tx.waitForRoom(frame);
    if (rx.violation === Violation.NONE && tx.violation === Violation.NONE) return true;
    this.#reset(frame);
    return false;
  }

  #reset(frame: number): void {
    const { tx, rx } = this;
    for (const { violation } of [tx, rx]) if (violation !== Violation.NONE) this.violations.add(violation);
    if (rx.violation !== Violation.NONE && (rx.available() !== 0 || rx.next())) {
      expect.fail(`goes on to receive: ${violationText(rx.violation)}`);
    }
    if (tx.violation !== Violation.NONE && (tx.reclaim() !== 0 || tx.reserve(frame) !== -1)) {
      expect.fail(`goes on to send: ${violationText(tx.violation)}`);
    }
    tx.initialise();
    rx.initialise();
  }
}

/** Positions that a hostile peer writes to, in 16-bit words of its section. */
function targets(layout: RingLayout) {
  return {
    availIdx: layout.avail / 2 + 1,
    availRing: layout.avail / 2 + 2,
    usedIdx: layout.used / 2 + 1,
    usedRing: layout.used / 2 + 2,
    n: layout.length,
    data: layout.data,
    size: layout.outputSectionSize,
  };
}

interface HostileInput {
  readonly peer: SharedArrayBuffer;
  readonly own: SharedArrayBuffer;
  /** [0] 1 once it writes, [1] 1 to make it end. */
  readonly control: SharedArrayBuffer;
  readonly at: ReturnType<typeof targets>;
}

/**
 * Runs in a thread of its own, from its source text, so it must not use anything outside. It behaves like a correct peer
 * first, so that the queues have work, and then violates the protocol in one of many ways.
 */
function hostile(input: HostileInput): void {
  const words = new Uint16Array(input.peer);
  const longs = new Uint32Array(input.peer);
  const victim = new Uint16Array(input.own);
  const control = new Int32Array(input.control);
  const { availIdx, availRing, usedIdx, usedRing, n, data, size } = input.at;
  let seed = 0x2545f491;
  const random = (below: number) => {
    seed ^= seed << 13;
    seed ^= seed >>> 17;
    seed ^= seed << 5;
    return (seed >>> 0) % below;
  };
  const putDescriptor = (descriptor: number, offset: number, high: number, length: number, flags: number) => {
    longs[4 * descriptor] = offset;
    longs[4 * descriptor + 1] = high;
    longs[4 * descriptor + 2] = length;
    longs[4 * descriptor + 3] = flags;
  };
  const deeds: (() => void)[] = [
    () => {
      words[availIdx] = random(0x10000);
    },
    () => {
      words[usedIdx] = random(0x10000);
    },
    () => {
      // As far ahead as is just possible, or one further; also from below zero.
      words[availIdx] = victim[usedIdx]! + n + random(3) - 1;
    },
    () => {
      words[availIdx] = victim[usedIdx]! - random(3);
    },
    () => {
      words[usedIdx] = victim[availIdx]! + random(3) - 1;
    },
    () => {
      words[availRing + random(n)] = random(2) === 0 ? random(n) : random(0x10000);
    },
    () => putDescriptor(random(n), random(0x100000000), random(3) - 1, random(0x100000000), random(0x10000)),
    () => putDescriptor(random(n), size - random(128), 0, random(256), 0),
    () => putDescriptor(random(n), data - 64 + random(128), 0, random(size), 0),
    () => putDescriptor(random(n), 0xffffffff - random(64), 0xffffffff, random(size), 0),
    () => {
      longs[4 * random(n) + 3] = random(0x10000);
    },
    () => {
      words[usedRing + 4 * random(n)] = random(0x10000);
    },
    () => {
      words[usedRing + 4 * random(n) + 2] = random(3);
    },
    () => {
      longs[random(data / 4)] = random(0x100000000);
    },
  ];
  const behave = () => {
    // Offers valid frames and completes pending ones.
    for (let i = 0; i < n; i++) {
      putDescriptor(i, data + 64 * (i % 8), 0, 64, 0);
      words[availRing + i] = i;
      words[usedRing + 4 * i] = i;
      words[usedRing + 4 * i + 1] = 0;
      words[usedRing + 4 * i + 2] = 1;
      words[usedRing + 4 * i + 3] = 0;
    }
    for (let i = 0; i < 50; i++) {
      Atomics.store(words, availIdx, victim[usedIdx]! + random(8));
      Atomics.store(words, usedIdx, Atomics.load(victim, availIdx));
      if (i < 40) continue;
      // Changes values between their check and their use.
      for (let d = 0; d < n; d++) longs[4 * d] = size - 1;
      for (let d = 0; d < n; d++) longs[4 * d] = data;
      for (let d = 0; d < n; d++) longs[4 * d + 2] = size;
      for (let d = 0; d < n; d++) longs[4 * d + 2] = 64;
    }
  };
  while (Atomics.load(control, 1) === 0) {
    behave();
    for (let i = random(20); i > 0; i--) deeds[random(deeds.length)]!();
    Atomics.store(control, 0, 1);
    Atomics.notify(control, 0);
  }
}

describe('a hostile peer', () => {
  it.each([0x1000, 0x10000])('that writes at any moment does no harm: sections of %i bytes', async (size) => {
    const layout = ringLayout(size);
    const peer = new SharedArrayBuffer(size);
    const own = new SharedArrayBuffer(size);
    const control = new SharedArrayBuffer(8);
    const flags = new Int32Array(control);
    const workerData: HostileInput = { peer, own, control, at: targets(layout) };
    const worker = new Worker(`(${hostile})(require('node:worker_threads').workerData)`, {
      eval: true,
      workerData,
    });
    const ended = new Promise((resolve, reject) => {
      worker.once('exit', resolve);
      worker.once('error', reject);
    });
    try {
      Atomics.wait(flags, 0, 0);
      const side = new HonestSide(asSection(own), asSection(peer), layout);
      let resets = 0;
      const enough = () => side.received > 1000 && side.sent > 1000 && resets > 500;
      for (let turn = 0; turn < 20_000 || (!enough() && turn < 5_000_000); turn++) {
        if (!side.turn(14 + (turn % 580))) resets++;
      }
      expect(enough()).toBe(true);
      expect(side.violations.size).toBeGreaterThan(1);
    } finally {
      Atomics.store(flags, 1, 1);
      await ended;
    }
  });

  it('does no harm with any sequence of writes between two turns', () => {
    const layout = ringLayout(0x1000);
    const { availIdx, availRing, usedIdx, usedRing, n } = targets(layout);
    const seen = new Set<Violation>();
    const interesting = fc.oneof(
      fc.constantFrom(0, 1, 2, n - 1, n, n + 1, 0x7fff, 0x8000, 0xfffe, 0xffff),
      fc.nat(0xffff),
    );
    const word = fc.oneof(
      fc.constantFrom(availIdx, usedIdx, availRing, availRing + 1, usedRing, usedRing + 1, usedRing + 2),
      fc.nat(layout.data / 2 - 1),
      // Descriptors 0 and 1: address, length, flags.
      fc.nat(15),
    );
    const writes = fc.array(fc.array(fc.tuple(word, interesting), { maxLength: 6 }), {
      minLength: 5,
      maxLength: 40,
      size: 'max',
    });
    fc.assert(
      fc.property(writes, (turns) => {
        const peer = asSection(new ArrayBuffer(layout.outputSectionSize));
        const words = new Uint16Array(peer.buffer);
        const side = new HonestSide(asSection(new ArrayBuffer(layout.outputSectionSize)), peer, layout);
        for (let i = 0; i < n; i++) {
          words.set([layout.data, 0, 0, 0, 60], 8 * i);
          words.set([i, 0, 1], usedRing + 4 * i);
          words[availRing + i] = i;
        }
        for (const turn of turns) {
          for (const [position, value] of turn) words[position] = value;
          side.turn(64);
        }
        for (const violation of side.violations) seen.add(violation);
      }),
      { numRuns: 500 },
    );
    expect(seen.size).toBeGreaterThan(3);
  });

  it('cannot make a sender that waits for room loop forever', () => {
    // used.idx advances with every read of it, to the end of the frames sent and beyond.
    const layout = ringLayout(0x1000);
    const peer = asSection(new ArrayBuffer(layout.outputSectionSize));
    const used = new DataView(peer.buffer, layout.used);
    const tx = new TxQueue(asSection(new ArrayBuffer(layout.outputSectionSize)), peer, layout);
    tx.initialise();
    for (let i = 0; i < layout.length; i++) {
      used.setUint32(4 + 8 * i, i, true);
      used.setUint32(8 + 8 * i, 1, true);
    }
    let frames = 0;
    for (; tx.reserve(64) !== -1; frames++) tx.commit(64);
    tx.flush();
    for (let idx = 0; idx <= frames; idx++) {
      used.setUint16(2, idx, true);
      // More than the whole data area: there is never room.
      expect(tx.waitForRoom(layout.outputSectionSize)).toBe(true);
      expect(tx.inFlight).toBe(frames - idx);
    }
    used.setUint16(2, frames + 1, true);
    expect([tx.waitForRoom(64), tx.violation]).toEqual([false, Violation.USED_INDEX]);
  });

  it('has each violation described in one clause', () => {
    for (const violation of Object.values(Violation)) expect(violationText(violation)).toMatch(/^[^\n]{4,}$/);
    expect(new Set(Object.values(Violation).map(violationText)).size).toBe(Object.keys(Violation).length);
  });
});
