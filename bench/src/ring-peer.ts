import { Epoll } from '@ivshmem/linux/wait';
import { LoopbackPort, Peer } from '@ivshmem/transport';
import { type Violation, violationText } from '@ivshmem/transport/protocol';

// The ring benchmark's processes, the same work as bench/reference/ring-bench.c, with the same arguments and the same
// descriptor: see there. The producer copies a frame into each slot, the consumer checks each descriptor and reads the
// number in the frame's first word. Both spin; doorbells are not part of it, but the decision about them is.

const MEMORY_FD = 3;

const [role, ...numbers] = process.argv.slice(2);
const [sectionSize = 0, frameSize = 0, frames = 0, warmUp = 0, burst = 0] = numbers.map(Number);
const produces = role !== 'consumer';
const consumes = role !== 'producer';
const parent = process.ppid;
let idle = 0;

/** Nothing to do: the other side may have died, and so may the benchmark, which would end this process. */
function lookAgain(): void {
  if ((++idle & 0xfffff) === 0 && process.ppid !== parent) throw new Error('the benchmark is gone');
}

const poller = new Epoll();

/** Peer `id` in the memory; without eventfds, there is nothing to ring. */
function openPeer(id: number): Peer {
  const identity = { id, maxPeers: 2, protocol: 1, vectors: 1 };
  const ends = { outputSectionSize: sectionSize, memoryFd: MEMORY_FD, eventFds: [[], []] };
  const peer = new Peer(new LoopbackPort({ ...identity, ...ends }, poller), poller);
  peer.begin({
    violated(violation: Violation) {
      throw new Error(`peer ${id}: ${violationText(violation)}`);
    },
  });
  return peer;
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
  readonly #peer: Peer;
  readonly #words: BigUint64Array;
  readonly #numbers: Uint32Array;
  readonly #bytes: Uint8Array;
  readonly #frame = new Uint8Array(frameSize).fill(0x5a);
  readonly #frameWords = new BigUint64Array(this.#frame.buffer, 0, frameSize >> 3);
  readonly #byLines = frameSize % 64 === 0 && frameSize <= FEW_LINES;

  constructor(peer: Peer) {
    this.#peer = peer;
    const { buffer } = peer.own;
    this.#words = new BigUint64Array(buffer);
    this.#numbers = new Uint32Array(buffer);
    this.#bytes = new Uint8Array(buffer);
  }

  /**
   * Sends a burst, as far as there is room; once there was none, only when half of what was in flight is done, which is
   * what a link waits for. Returns whether frames came back.
   */
  produce(): boolean {
    const { tx } = this.#peer;
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
    this.#peer.flush();
    return tx.reclaim() > 0;
  }
}

class Consumer {
  received = 0;
  start = 0;
  readonly #peer: Peer;
  readonly #words: Uint32Array;
  readonly #clock: () => number;

  constructor(peer: Peer, clock: () => number) {
    this.#peer = peer;
    this.#words = new Uint32Array(peer.input.buffer);
    this.#clock = clock;
  }

  /** Takes up to a burst. Returns whether there was any frame. */
  consume(): boolean {
    const { rx } = this.#peer;
    const waiting = Math.min(rx.available(), burst);
    if (this.received <= warmUp && this.received + waiting > warmUp) this.start = this.#clock();
    for (let n = waiting; n > 0 && rx.next(); n--) {
      if (this.#words[rx.offset >> 2] !== this.received)
        throw new Error(`consumer: frame ${this.received} is not the one that came`);
      this.received++;
    }
    this.#peer.flush();
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

const peers = [...(produces ? [openPeer(0)] : []), ...(consumes ? [openPeer(1)] : [])];
while (!peers.every((peer) => peer.running)) {
  for (const peer of peers) peer.evaluate();
  lookAgain();
}
const producer = produces ? new Producer(peers[0]!) : null;
const consumer = consumes ? new Consumer(peers.at(-1)!, produces ? processorTime : wallClock) : null;

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
