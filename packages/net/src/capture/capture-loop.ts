import { setPriority } from 'node:os';
import { closeFd, yieldProcessor } from '@ivshmem/linux';
import { fileLength, type Mapping, mapShared, PAGE_SIZE } from '@ivshmem/linux/memory';
import { clearEventFd, EPOLLET, EPOLLIN, EPOLLOUT, Epoll, realTime } from '@ivshmem/linux/wait';
import {
  announcedCapabilities,
  Capability,
  commonCapabilities,
  memoryLayout,
  type ObservedFrame,
  type ObserverClock,
  RingObserver,
  ringLayout,
  STATE_TABLE_SIZE,
  State,
} from '@ivshmem/transport/protocol';
import { ByteRing } from './byte-ring.ts';
import { type CaptureInput, CELL, COUNTERS, Counter, DOORBELLS } from './capture-input.ts';
import { DropReader } from './drops.ts';
import { describeFrame } from './frame-description.ts';
import { enhancedPacket, interfaceDescription, interfaceStatistics, sectionHeader } from './pcapng.ts';

/** How long the rings are polled after the last frame, in ms. */
const SPIN_MS = 1;
/** Then the thread sleeps until a doorbell rings. In ms: if both receivers have requested one, and if not. */
const SLEEP_MS = 100;
const DOZE_MS = 1;
/** Other threads come first: a capture loses frames rather than slow a link down. */
const LOWEST_PRIORITY = 19;
/** Reported for each eventfd that is signalled, whether or not its reader has cleared it in the meantime. */
const EACH_SIGNAL = EPOLLIN | EPOLLOUT | EPOLLET;

/** Reads the rings of both directions, and writes a pcapng file into a {@link ByteRing}. */
export class CaptureLoop {
  readonly #input: CaptureInput;
  readonly #notify: () => void;
  readonly #epoll = new Epoll();
  readonly #mappings: Mapping[] = [];
  readonly #ring: ByteRing;
  readonly #states: Uint32Array;
  readonly #observers: RingObserver[];
  readonly #capabilities: () => number;
  readonly #doorbells: number[] = [];
  /** Frames of both directions that are known to be whole, and wait for earlier ones that are not. */
  #queue: { readonly direction: number; readonly frame: ObservedFrame }[] = [];
  /** The time of all frames that are seen in one round, if there are any. */
  #time: bigint | null = null;
  readonly #clock: ObserverClock = {
    now: () => performance.now(),
    time: () => {
      this.#time ??= realTime();
      return this.#time;
    },
  };
  /** By direction: frames that could not be written since the last that was. */
  readonly #unwritten = [0, 0];
  readonly #drops: DropReader;
  readonly #start = realTime();
  #seen: number[];
  #hasHeaders = false;
  #stopped = false;

  /** `notify` is called when bytes have been written. Throws SystemCallError, LayoutError. */
  constructor(input: CaptureInput, stopFd: number, notify: () => void) {
    this.#input = input;
    this.#notify = notify;
    this.#ring = new ByteRing(input.ring);
    this.#drops = new DropReader(input.drops);
    try {
      const { memory, maxPeers, outputSectionSize, snapLength } = input;
      const { outputOffset } = memoryLayout(fileLength(memory), maxPeers, outputSectionSize, PAGE_SIZE);
      const layout = ringLayout(outputSectionSize);
      const map = (offset: number, length: number) => {
        const mapping = mapShared(memory, length, { offset, subject: 'shared memory' });
        this.#mappings.push(mapping);
        return mapping;
      };
      this.#states = new Uint32Array(map(0, STATE_TABLE_SIZE).buffer, 0, 2);
      const sections = [0, 1].map((id) => map(outputOffset + id * outputSectionSize, outputSectionSize));
      const [one, other] = sections as [Mapping, Mapping];
      this.#capabilities = () =>
        commonCapabilities(announcedCapabilities(one, layout), announcedCapabilities(other, layout));
      this.#observers = [
        new RingObserver(
          one,
          other,
          layout,
          (frame) => this.#queue.push({ direction: 0, frame }),
          snapLength,
        ),
        new RingObserver(
          other,
          one,
          layout,
          (frame) => this.#queue.push({ direction: 1, frame }),
          snapLength,
        ),
      ];
      this.#seen = this.#readStates();
      this.#negotiate();
      this.#epoll.add(stopFd, EPOLLIN, () => {
        this.#stopped = true;
      });
      this.#epoll.add(input.wakeFd, EPOLLIN, () => {
        clearEventFd(input.wakeFd);
        this.#takeDoorbells();
      });
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Captures until the thread is stopped. */
  run(up: () => void): void {
    setPriority(LOWEST_PRIORITY);
    this.#writeHeader();
    this.#takeDoorbells();
    up();
    let active = this.#clock.now();
    while (!this.#stopped) {
      if (this.#poll()) {
        active = this.#clock.now();
        // A stop request must be noticed even if frames never cease.
        this.#epoll.wait(0);
      } else if (this.#clock.now() - active < SPIN_MS) {
        yieldProcessor();
      } else {
        const willRing =
          this.#doorbells.length > 0 &&
          this.#observers.every((observer, id) => !this.#isJoined(id) || observer.willRing);
        this.#epoll.wait(willRing ? SLEEP_MS : DOZE_MS);
        active = this.#clock.now();
      }
    }
    this.#finish();
  }

  /** Returns whether there were frames. */
  #poll(): boolean {
    this.#time = null;
    this.#followStates();
    let published = 0;
    for (const [direction, observer] of this.#observers.entries()) {
      if (!this.#isJoined(direction)) continue;
      published += observer.poll(this.#clock);
      if (published > 0) this.#count(direction, observer);
    }
    this.#writeInOrder();
    return published > 0;
  }

  /** Writes what no frame that is still in doubt precedes. */
  #writeInOrder(): void {
    if (this.#queue.length === 0) return;
    const doubts = this.#observers
      .map(({ unsettledSince }) => unsettledSince)
      .filter((time) => time !== null);
    this.#queue.sort((a, b) => Number(a.frame.time - b.frame.time));
    const end = this.#queue.findIndex(({ frame }) => doubts.some((time) => frame.time > time));
    for (const { direction, frame } of this.#queue.splice(0, end === -1 ? this.#queue.length : end)) {
      this.#write(direction, frame);
    }
  }

  #count(direction: number, { missed, invalid }: RingObserver): void {
    const { counters } = this.#input;
    const at = direction * COUNTERS;
    counters[at + Counter.missed] = missed + counters[at + Counter.overflowed]!;
    counters[at + Counter.invalid] = invalid;
  }

  /** Whether a peer uses its section. Below READY, it clears it, and what it can receive may change. */
  #isJoined(id: number): boolean {
    return this.#seen[id]! >= State.READY;
  }

  #readStates(): number[] {
    return [Atomics.load(this.#states, 0), Atomics.load(this.#states, 1)];
  }

  #followStates(): void {
    const now = this.#readStates();
    const before = this.#seen;
    if (now[0] === before[0] && now[1] === before[1]) return;
    for (const [id, observer] of this.#observers.entries()) {
      const wasJoined = this.#isJoined(id);
      this.#seen[id] = now[id]!;
      if (wasJoined && !this.#isJoined(id)) observer.finish(this.#clock);
      if (!wasJoined && this.#isJoined(id)) observer.restart();
    }
    this.#negotiate();
  }

  #negotiate(): void {
    this.#hasHeaders = (this.#capabilities() & Capability.VNET_HDR) !== 0;
  }

  #writeHeader(): void {
    const { link, application, system, snapLength } = this.#input;
    this.#append(sectionHeader(application, system));
    for (const [from, to] of ['01', '10']) {
      const name = `peer ${from} to ${to}`;
      this.#append(interfaceDescription({ name, description: `${link}, ${name}`, snapLength }));
    }
  }

  #write(direction: number, { bytes, length, time, missedBefore, isDoubtful }: ObservedFrame): void {
    const { counters } = this.#input;
    const at = direction * COUNTERS;
    const dropped = this.#unwritten[direction]! + missedBefore;
    const described = describeFrame(bytes, length, this.#hasHeaders);
    const comments = [...described.comments, ...this.#drops.news(direction)];
    if (isDoubtful) comments.push('may have been overwritten while it was captured');
    if (dropped > 0) comments.push(`${dropped} frames before were not captured`);
    const packet = enhancedPacket({ interfaceId: direction, time, ...described, dropped, comments });
    if (this.#append(packet)) {
      this.#unwritten[direction] = 0;
      counters[at + Counter.frames]!++;
      counters[at + Counter.bytes]! += described.length;
    } else {
      this.#unwritten[direction] = dropped + 1;
      counters[at + Counter.overflowed]!++;
    }
  }

  #append(block: Uint8Array): boolean {
    const isWritten = this.#ring.write(block);
    if (Atomics.exchange(this.#input.cells, CELL.NOTIFIED, 1) === 0) this.#notify();
    return isWritten;
  }

  /** Takes over the eventfds that the main thread has left, in place of those before. */
  #takeDoorbells(): void {
    const { cells } = this.#input;
    if (Atomics.exchange(cells, CELL.RENEWED, 0) === 0) return;
    this.#dropDoorbells();
    for (let i = 0; i < DOORBELLS; i++) {
      const fd = Atomics.exchange(cells, CELL.DOORBELL + i, -1);
      if (fd === -1) continue;
      this.#doorbells.push(fd);
      this.#epoll.add(fd, EACH_SIGNAL, () => {});
    }
  }

  #dropDoorbells(): void {
    for (const fd of this.#doorbells.splice(0)) {
      this.#epoll.remove(fd);
      closeFd(fd);
    }
  }

  #finish(): void {
    this.#poll();
    // What is not settled after this time never will be.
    for (const begin = this.#clock.now(); this.#clock.now() - begin < 2 * SPIN_MS; ) yieldProcessor();
    for (const [id, observer] of this.#observers.entries())
      if (this.#isJoined(id)) observer.finish(this.#clock);
    this.#writeInOrder();
    const end = realTime();
    const { counters } = this.#input;
    for (const [direction, observer] of this.#observers.entries()) {
      this.#count(direction, observer);
      const at = direction * COUNTERS;
      const dropped = counters[at + Counter.missed]!;
      const invalid = counters[at + Counter.invalid]!;
      const notes = this.#drops.all(direction);
      if (invalid > 0) notes.push(`${invalid} invalid descriptors`);
      this.#append(
        interfaceStatistics({
          interfaceId: direction,
          start: this.#start,
          end,
          received: counters[at + Counter.frames]! + dropped,
          dropped,
          comment: notes.length > 0 ? notes.join('; ') : undefined,
        }),
      );
    }
  }

  close(): void {
    this.#dropDoorbells();
    this.#epoll.close();
    for (const mapping of this.#mappings) mapping.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
