import { parentPort, workerData } from 'node:worker_threads';
import { mapShared } from '@ivshmem/linux';
import { RxQueue, ringLayout, TxQueue, Violation } from '@ivshmem/transport';

// One side of the ring benchmark, in a thread of its own: the producer copies a frame into each slot, the consumer
// checks each descriptor and reads the number in the frame's first word. Both spin; doorbells are not part of it.

export interface RingPeerData {
  role: 'producer' | 'consumer';
  /** memfd with the sections of the producer (0) and of the consumer (1). */
  fd: number;
  sectionSize: number;
  frameSize: number;
  frames: number;
  burst: number;
  /** [0] barrier. */
  control: SharedArrayBuffer;
}

const data: RingPeerData = workerData;
const id = data.role === 'producer' ? 0 : 1;
const own = mapShared(data.fd, data.sectionSize, { offset: id * data.sectionSize, write: true });
const peer = mapShared(data.fd, data.sectionSize, { offset: (1 - id) * data.sectionSize });
const layout = ringLayout(data.sectionSize);
const tx = new TxQueue(own, peer, layout);
const rx = new RxQueue(own, peer, layout);
tx.initialise();
rx.initialise();
const barrier = new Int32Array(data.control);
Atomics.add(barrier, 0, 1);
while (Atomics.load(barrier, 0) < 2);

/** Copies 64 bytes, four times as fast as a loop or `set` does. */
function copyLine(to: Uint32Array, at: number, from: Uint32Array): void {
  to[at] = from[0]!;
  to[at + 1] = from[1]!;
  to[at + 2] = from[2]!;
  to[at + 3] = from[3]!;
  to[at + 4] = from[4]!;
  to[at + 5] = from[5]!;
  to[at + 6] = from[6]!;
  to[at + 7] = from[7]!;
  to[at + 8] = from[8]!;
  to[at + 9] = from[9]!;
  to[at + 10] = from[10]!;
  to[at + 11] = from[11]!;
  to[at + 12] = from[12]!;
  to[at + 13] = from[13]!;
  to[at + 14] = from[14]!;
  to[at + 15] = from[15]!;
}

function produce(): void {
  const words = new Uint32Array(own.buffer);
  const bytes = new Uint8Array(own.buffer);
  const size = data.frameSize;
  const frame = new Uint8Array(size).fill(0x5a);
  const frameWords = new Uint32Array(frame.buffer, 0, size >> 2);
  const small = size === 64;
  let sent = 0;
  while (sent < data.frames) {
    for (let i = 0; i < data.burst && sent < data.frames; i++) {
      const offset = tx.reserve(size);
      if (offset === -1) break;
      frameWords[0] = sent;
      if (small) copyLine(words, offset >> 2, frameWords);
      else bytes.set(frame, offset);
      tx.commit(size);
      sent++;
    }
    tx.flush();
    tx.reclaim();
    if (tx.violation !== Violation.NONE) throw new Error(`producer: violation ${tx.violation}`);
  }
}

function consume(): void {
  const words = new Uint32Array(peer.buffer);
  let received = 0;
  while (received < data.frames) {
    for (let n = Math.min(rx.available(), data.burst); n > 0; n--) {
      if (!rx.next()) throw new Error(`consumer: violation ${rx.violation}`);
      if (words[rx.offset >> 2] !== received)
        throw new Error(`consumer: frame ${received} is not the one that came`);
      received++;
    }
    rx.flush();
  }
}

const start = process.hrtime.bigint();
if (data.role === 'producer') produce();
else consume();
parentPort!.postMessage(Number(process.hrtime.bigint() - start) / 1e9);
