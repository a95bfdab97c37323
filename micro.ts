import { mainPoller } from '@ivshmem/linux';
import {
  decodeServerMessage,
  encodeInit,
  handshakeStep,
  INITIAL_HANDSHAKE,
  Loopback,
  LoopbackPort,
  RxQueue,
  ringLayout,
  TxQueue,
  USED_LENGTH,
} from '@ivshmem/transport';
import Benchmark from 'benchmark';
import { alternate, comparisonLines, type Reading } from './alternate.ts';
import type { Measurement } from './results.ts';

const SECTION_SIZE = 0x100000;
const FRAME = 1514;
const BURST = 64;
const U16 = 0xffff;

export const microSettings = { frameSize: FRAME, burst: BURST, maxSeconds: 0.5 };

/** One thing that is done over and over; `operations` of them in each call. */
interface Operation {
  readonly name: string;
  readonly operations: number;
  readonly run: () => void;
}

/**
 * Single operations in one thread, by benchmark.js, in nanoseconds. Of the queues only one side works: what the other
 * side would do was done before, down to the one index that tells of it.
 */
export async function benchMicro(rounds: number, signal: AbortSignal): Promise<Measurement[]> {
  using loopback = new Loopback({ outputSize: SECTION_SIZE });
  using a = new LoopbackPort(loopback.ends[0], mainPoller);
  using b = new LoopbackPort(loopback.ends[1], mainPoller);
  const operations = [...queueOperations(a, b), ...otherOperations(a)];
  const measurements = await alternate([{ name: 'ivshmem' }], rounds, async () => {
    const readings: Reading[] = [];
    for (const operation of operations) {
      signal.throwIfAborted();
      readings.push({ what: operation.name, unit: 'ns', value: await nanoseconds(operation) });
    }
    return readings;
  });
  for (const line of comparisonLines(measurements)) console.log(line);
  return measurements;
}

async function nanoseconds({ name, operations, run }: Operation): Promise<number> {
  const benchmark = new Benchmark(name, run, { maxTime: microSettings.maxSeconds });
  await new Promise((resolve) => benchmark.on('complete', resolve).run({ async: true }));
  const { error } = benchmark as { error?: Error };
  if (error !== undefined) throw error;
  return (benchmark.stats.mean * 1e9) / operations;
}

function queueOperations(a: LoopbackPort, b: LoopbackPort): Operation[] {
  const layout = ringLayout(SECTION_SIZE);
  const { length } = layout;
  const tx = new TxQueue(a.output!, a.input(1)!, layout);
  const rx = new RxQueue(b.output!, b.input(0)!, layout);
  tx.initialise();
  rx.initialise();
  const sent16 = new Uint16Array(a.output!.buffer);
  const answer16 = new Uint16Array(b.output!.buffer);
  const answer32 = new Uint32Array(b.output!.buffer);
  const availIdx = layout.avail / 2 + 1;
  const usedIdx = layout.used / 2 + 1;
  for (let i = 0; i < length; i++) {
    answer32[layout.used / 4 + 1 + 2 * i] = i;
    answer32[layout.used / 4 + 2 + 2 * i] = USED_LENGTH;
  }
  const sound = (isSound: boolean) => {
    if (!isSound) throw new Error('the queues do not work');
  };

  const enqueue = (count: number) => () => {
    for (let i = 0; i < count; i++) {
      sound(tx.reserve(FRAME) !== -1);
      tx.commit(FRAME);
    }
    tx.flush();
    answer16[usedIdx] = (answer16[usedIdx]! + count) & U16;
    tx.reclaim();
  };
  const dequeue = (count: number) => () => {
    sent16[availIdx] = (sent16[availIdx]! + count) & U16;
    sound(rx.available() === count);
    for (let i = 0; i < count; i++) sound(rx.next());
    rx.flush();
  };
  // Fills all descriptors, and leaves both sides at the same index.
  for (let i = 0; i < length; i += BURST) enqueue(BURST)();
  for (let n = rx.available(); n > 0; n--) sound(rx.next());
  rx.flush();
  return [
    { name: 'enqueue a frame', operations: 1, run: enqueue(1) },
    { name: `enqueue, in bursts of ${BURST}`, operations: BURST, run: enqueue(BURST) },
    { name: 'dequeue a frame', operations: 1, run: dequeue(1) },
    { name: `dequeue, in bursts of ${BURST}`, operations: BURST, run: dequeue(BURST) },
    { name: 'descriptor check', operations: length, run: dequeue(length) },
  ];
}

function otherOperations(a: LoopbackPort): Operation[] {
  const init = { id: 1, maxPeers: 2, vectors: 2, protocol: 1, outputSectionSize: SECTION_SIZE };
  const encoded = encodeInit(init);
  const ready = handshakeStep(handshakeStep(INITIAL_HANDSHAKE, 1, false).next, 1, false).next;
  return [
    { name: 'handshake step', operations: 1, run: () => handshakeStep(ready, 2, false) },
    { name: 'INIT message, encode', operations: 1, run: () => encodeInit(init) },
    { name: 'INIT message, decode', operations: 1, run: () => decodeServerMessage(encoded) },
    { name: 'doorbell (write to an eventfd)', operations: 1, run: () => a.ring(1, 1) },
  ];
}
