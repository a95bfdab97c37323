import { Epoll } from '@ivshmem/linux/wait';
import { type Loopback, LoopbackPort } from '@ivshmem/transport';
import {
  type AnnouncedMtu,
  announceCapabilities,
  announceMtu,
  Handshake,
  RxQueue,
  ringLayout,
  TxQueue,
} from '@ivshmem/transport/protocol';

/** A frame of local experimental ethertype 0x88b5 that carries a number. */
export function frame(number: number, length = 60): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
  if (length >= 18) new DataView(bytes.buffer).setUint32(14, number);
  return bytes;
}

/**
 * The other side of a link, driven by hand: what a peer of ours would be, or a hostile one. Its rings are the real
 * ones; `port` and `epoll` give access to everything below.
 */
export class HandPeer {
  readonly epoll = new Epoll();
  readonly port: LoopbackPort;
  readonly tx: TxQueue;
  readonly rx: RxQueue;
  readonly handshake: Handshake;

  /** `capabilities` are announced, unless they are 0, and the MTU that `mtu` returns, unless it is null. */
  constructor(loopback: Loopback, capabilities = 0, mtu: () => AnnouncedMtu | null = () => null) {
    this.port = new LoopbackPort(loopback.ends[1], this.epoll);
    const own = this.port.output!;
    const layout = ringLayout(own.length);
    this.tx = new TxQueue(own, this.port.input(0)!, layout);
    this.rx = new RxQueue(own, this.port.input(0)!, layout);
    this.handshake = new Handshake(this.port, 0, {
      initialise: () => {
        this.tx.initialise();
        this.rx.initialise();
        if (capabilities !== 0) announceCapabilities(own, layout, capabilities);
        const announced = mtu();
        if (announced !== null) announceMtu(own, layout, announced);
      },
      start() {},
      stop() {},
      carrier() {},
    });
    this.port.onInterrupt((vector) => vector === 0 && this.handshake.evaluate());
  }

  /** Takes part until `done`. The link runs in a worker, and so moves on while this blocks. */
  until(done: () => boolean): void {
    const deadline = performance.now() + 30_000;
    this.handshake.poll();
    while (!done()) {
      if (performance.now() > deadline) throw new Error('nothing more has happened for 30 seconds');
      this.epoll.wait(100);
      this.handshake.poll();
    }
  }

  send(bytes: Uint8Array): void {
    const slot = this.tx.reserve(bytes.length);
    new Uint8Array(this.port.output!.buffer).set(bytes, slot);
    this.tx.commit(bytes.length);
    this.tx.flush();
    this.port.ring(0, 1);
  }

  /** The next frame, all that is in the ring of it. */
  receive(): Uint8Array {
    this.until(() => this.rx.available() > 0);
    if (!this.rx.next()) throw new Error(`violation ${this.rx.violation}`);
    const { offset, length } = this.rx;
    const bytes = new Uint8Array(this.port.input(0)!.buffer.slice(offset, offset + length));
    this.rx.flush();
    return bytes;
  }

  close(): void {
    this.handshake.shutdown();
    this.port.close();
    this.epoll.close();
  }
}
