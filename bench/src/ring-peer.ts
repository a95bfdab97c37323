import { mapShared } from '@ivshmem/linux/memory';
import { RxQueue, ringLayout, TxQueue, Violation } from '@ivshmem/transport/protocol';

// The ring benchmark's processes, the same work as bench/reference/ring-bench.c, with the same arguments and the same
// descriptor: see there. The producer copies a frame into each slot, the consumer checks each descriptor and reads the
// number in the frame's first word. Both spin; doorbells are not part of it, but the decision about them is.

const MEMORY_FD = 3;
/** A multiple of every page size. */
const START_SIZE = 0x10000;

const [role, ...numbers] = process.argv.slice(2);
const [sectionSize = 0, frameSize = 0, frames = 0, warmUp = 0, burst = 0] = numbers.map(Number);
const produces = role !== 'consumer';
const consumes = role !== 'producer';
const layout = ringLayout(sectionSize);
const parent = process.ppid;
let idle = 0;

/** Nothing to do: the other side may have died, and whoever would tell so as well. */
function lookAgain(): void {
  if ((++idle & 0xfffff) === 0 && process.ppid !== parent) throw new Error('the benchmark is gone');
}

/** Maps both sections with the rights of peer `id`. */
function mapSections(id: number) {
  const map = (owner: number) =>
    mapShared(MEMORY_FD, sectionSize, { offset: START_SIZE + owner * sectionSize, write: owner === id });
  return [map(id), map(1 - id)] as const;
}

/**
 * Copies whole lines of 64 bytes, faster than a call of `set` does it while they are few. From array to array no BigInt
 * is made of the words, and 64 bits at a time cost half of what 32 bits do.
 */
function copyLines(to: BigUint64Array, at: number, from: BigUint64Array): void {
  for (let i = 0; i < from.length; i += 8, at += 8) {
    to[at] = from[i]!;
    to[at + 1] = from[i + 1]!;
    to[at + 2] = from[i + 2]!;
    to[at + 3] = from[i + 3]!;
    to[at + 4] = from[i + 4]!;
    to[at + 5] = from[i + 5]!;
    to[at + 6] = from[i + 6]!;
    to[at + 7] = from[i + 7]!;
  }
}

/** Frames of whole lines up to this size, in bytes, are copied by {@link copyLines}. */
const FEW_LINES = 256;

class Producer {
  sent = 0;
  /** Frames in flight with which it goes on sending. */
  #enough = Number.POSITIVE_INFINITY;
  readonly #tx: TxQueue;
  readonly #words: BigUint64Array;
  readonly #numbers: Uint32Array;
  readonly #bytes: Uint8Array;
  readonly #frame = new Uint8Array(frameSize).fill(0x5a);
  readonly #frameWords = new BigUint64Array(this.#frame.buffer, 0, frameSize >> 3);
  readonly #byLines = frameSize % 64 === 0 && frameSize <= FEW_LINES;

  constructor() {
    const [own, peer] = mapSections(0);
    this.#tx = new TxQueue(own, peer, layout);
    this.#tx.initialise();
    this.#words = new BigUint64Array(own.buffer);
    this.#numbers = new Uint32Array(own.buffer);
    this.#bytes = new Uint8Array(own.buffer);
  }

  /**
   * Sends a burst, as far as there is room; once there was none, only when half of what was in flight is done, which is
   * what a link waits for. Returns whether frames came back.
   */
  produce(): boolean {
    const tx = this.#tx;
    if (tx.inFlight <= this.#enough) this.#enough = Number.POSITIVE_INFINITY;
    for (let i = 0; i < burst && this.sent < frames && tx.inFlight <= this.#enough; i++) {
      const slot = tx.reserve(frameSize);
      if (slot === -1) {
        this.#enough = tx.inFlight >> 1;
        break;
      }
      if (this.#byLines) copyLines(this.#words, slot / 8, this.#frameWords);
      else this.#bytes.set(this.#frame, slot);
      this.#numbers[slot >> 2] = this.sent;
      tx.commit(frameSize);
      this.sent++;
    }
    tx.flush();
    const reclaimed = tx.reclaim() > 0;
    if (tx.violation !== Violation.NONE) throw new Error(`producer: violation ${tx.violation}`);
    return reclaimed;
  }
}

class Consumer {
  received = 0;
  start = 0;
  readonly #rx: RxQueue;
  readonly #words: Uint32Array;
  readonly #clock: () => number;

  constructor(clock: () => number) {
    const [own, peer] = mapSections(1);
    new Uint8Array(own.buffer).fill(0);
    this.#rx = new RxQueue(own, peer, layout);
    this.#rx.initialise();
    this.#words = new Uint32Array(peer.buffer);
    this.#clock = clock;
  }

  /** Takes up to a burst. Returns whether there was any frame. */
  consume(): boolean {
    const rx = this.#rx;
    const waiting = Math.min(rx.available(), burst);
    if (this.received <= warmUp && this.received + waiting > warmUp) this.start = this.#clock();
    for (let n = waiting; n > 0 && rx.next(); n--) {
      if (this.#words[rx.offset >> 2] !== this.received)
        throw new Error(`consumer: frame ${this.received} is not the one that came`);
      this.received++;
    }
    rx.flush();
    if (rx.violation !== Violation.NONE) throw new Error(`consumer: violation ${rx.violation}`);
    return waiting > 0;
  }

  /** Prints the seconds since the warm-up. */
  report(): void {
    console.log((this.#clock() - this.start).toFixed(9));
  }
}

/** In seconds. */
const wallClock = () => performance.now() / 1000;
const processorTime = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

const ready = new Int32Array(mapShared(MEMORY_FD, START_SIZE, { write: true }).buffer);
const producer = produces ? new Producer() : null;
if (producer !== null) Atomics.store(ready, 0, 1);
const consumer = consumes ? new Consumer(produces ? processorTime : wallClock) : null;
if (consumer !== null) Atomics.store(ready, 1, 1);
// Stands in for the handshake: neither looks at the other's section before it was initialised.
while (Atomics.load(ready, 0) === 0 || Atomics.load(ready, 1) === 0) lookAgain();

if (producer !== null && consumer !== null) {
  while (consumer.received < frames) {
    producer.produce();
    consumer.consume();
  }
} else if (producer !== null) {
  while (producer.sent < frames) if (!producer.produce()) lookAgain();
} else if (consumer !== null) {
  while (consumer.received < frames) if (!consumer.consume()) lookAgain();
}
consumer?.report();
