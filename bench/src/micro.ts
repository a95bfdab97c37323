import { mainPoller } from '@ivshmem/linux/wait';
import { Loopback, LoopbackPort } from '@ivshmem/transport';
import {
  decodeServerMessage,
  encodeEventFd,
  encodeInit,
  handshakeStep,
  INITIAL_HANDSHAKE,
  RxQueue,
  ringLayout,
  TxQueue,
} from '@ivshmem/transport/protocol';
import Benchmark from 'benchmark';
import type { Part, PartOptions } from './part.ts';

const SECTION_SIZE = 0x100000;
/** Quickly cleared, with room for a burst. */
const SMALL_SECTION_SIZE = 0x2000;
const SMALL_FRAME = 64;
const SMALL_BURST = 32;

async function run({ signal, recorder }: PartOptions): Promise<void> {
  using loopback = new Loopback({ outputSectionSize: SECTION_SIZE });
  using a = new LoopbackPort(loopback.ends[0], mainPoller);
  using b = new LoopbackPort(loopback.ends[1], mainPoller);
  const layout = ringLayout(SECTION_SIZE);
  const tx = new TxQueue(a.output!, a.input(1)!, layout);
  const rx = new RxQueue(b.output!, b.input(0)!, layout);
  tx.initialise();
  rx.initialise();
  const init = encodeInit({ id: 1, maxPeers: 2, vectors: 2, protocol: 1, outputSectionSize: SECTION_SIZE });
  const ready = handshakeStep(handshakeStep(INITIAL_HANDSHAKE, 1).next, 1).next;

  using small = new Loopback({ outputSectionSize: SMALL_SECTION_SIZE });
  using sender = new LoopbackPort(small.ends[0], mainPoller);
  using receiver = new LoopbackPort(small.ends[1], mainPoller);
  const smallLayout = ringLayout(SMALL_SECTION_SIZE);
  const smallTx = new TxQueue(sender.output!, sender.input(1)!, smallLayout);
  const smallRx = new RxQueue(receiver.output!, receiver.input(0)!, smallLayout);
  const enqueue = () => {
    smallTx.initialise();
    for (let i = 0; i < SMALL_BURST; i++) {
      smallTx.reserve(SMALL_FRAME);
      smallTx.commit(SMALL_FRAME);
    }
    smallTx.flush();
  };

  const suite = new Benchmark.Suite();
  suite
    .add('a frame through the rings, enqueue to completion', () => {
      tx.reserve(1514);
      tx.commit(1514);
      tx.flush();
      rx.available();
      rx.next();
      rx.flush();
      tx.reclaim();
    })
    .add('the same in bursts of 64, for each frame', () => {
      for (let i = 0; i < 64; i++) {
        tx.reserve(1514);
        tx.commit(1514);
      }
      tx.flush();
      for (let i = rx.available(); i > 0; i--) rx.next();
      rx.flush();
      tx.reclaim();
    })
    .add('a frame enqueued, in bursts of 32 on a queue that is cleared', enqueue)
    // Those of the burst that was enqueued last, again and again.
    .add('a frame dequeued, its descriptor checked, in bursts of 32', () => {
      smallRx.initialise();
      for (let i = smallRx.available(); i > 0; i--) smallRx.next();
      smallRx.flush();
    })
    .add('a doorbell (write to an eventfd)', () => {
      a.ring(1, 1);
    })
    .add('a handshake step', () => {
      handshakeStep(ready, 2);
    })
    .add('INIT, decoded', () => {
      decodeServerMessage(init);
    })
    .add('EVENT_FD, encoded', () => {
      encodeEventFd(1, 1);
    });
  suite.on('cycle', (event: { target: unknown }) => {
    const { name, stats } = event.target as Benchmark;
    const scale = 1e9 / Number(/bursts of (\d+)/.exec(name!)?.[1] ?? 1);
    const values = stats!.sample.map((seconds) => seconds * scale);
    recorder.found([{ what: name!, subject: 'ivshmem', unit: 'ns', values }]);
  });
  const stop = () => suite.abort();
  signal.addEventListener('abort', stop, { once: true });
  await new Promise((resolve) => suite.on('complete abort', resolve).run({ async: true }));
  signal.removeEventListener('abort', stop);
  signal.throwIfAborted();
}

/** Single operations in one thread, by benchmark.js, which also decides how often each is measured. */
export const micro: Part = {
  name: 'micro',
  title: 'Single operations, one thread',
  missing: () => null,
  settings: { sectionSize: SECTION_SIZE },
  run,
};
