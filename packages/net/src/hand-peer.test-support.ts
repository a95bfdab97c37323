import { Epoll } from '@ivshmem/linux/wait';
import { type Loopback, LoopbackPort, Peer } from '@ivshmem/transport';
import {
  type AnnouncedMtu,
  announceCapabilities,
  announceMtu,
  RING_VECTOR,
  type RxQueue,
  type TxQueue,
} from '@ivshmem/transport/protocol';

/** A frame of local experimental ethertype 0x88b5 that carries a number. */
export function frame(number: number, length = 60): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5].slice(0, length));
  if (length >= 18) new DataView(bytes.buffer).setUint32(14, number);
  return bytes;
}

/**
 * The other side of a link, driven by hand: an ordinary or a hostile peer, with real rings and a real handshake. `side`,
 * `port` and `epoll` give access to everything below.
 */
export class HandPeer {
  readonly epoll = new Epoll();
  readonly side: Peer;
  readonly port: LoopbackPort;
  readonly tx: TxQueue;
  readonly rx: RxQueue;

  /** `capabilities` are announced, unless they are 0, and the MTU that `mtu` returns, unless it is null. */
  constructor(loopback: Loopback, capabilities = 0, mtu: () => AnnouncedMtu | null = () => null) {
    this.port = new LoopbackPort(loopback.ends[1], this.epoll);
    this.side = new Peer(this.port, this.epoll);
    const { own, layout, tx, rx } = this.side;
    this.tx = tx;
    this.rx = rx;
    this.side.begin({
      announce() {
        if (capabilities !== 0) announceCapabilities(own, layout, capabilities);
        const announced = mtu();
        if (announced !== null) announceMtu(own, layout, announced);
      },
    });
  }

  /** Runs this side until `done`. The link runs in a worker, so it makes progress while this blocks. */
  until(done: () => boolean): void {
    const deadline = performance.now() + 30_000;
    this.side.poll();
    while (!done()) {
      if (performance.now() > deadline) throw new Error('nothing more has happened for 30 seconds');
      this.epoll.wait(100);
      this.side.poll();
    }
  }

  send(bytes: Uint8Array): void {
    const slot = this.tx.reserve(bytes.length);
    new Uint8Array(this.port.output!.buffer).set(bytes, slot);
    this.tx.commit(bytes.length);
    this.tx.flush();
    this.port.ring(0, RING_VECTOR);
  }

  /** The next frame, with all its bytes in the ring. */
  receive(): Uint8Array {
    this.until(() => this.rx.available() > 0);
    if (!this.rx.next()) throw new Error(`violation ${this.rx.violation}`);
    const { offset, length } = this.rx;
    const bytes = new Uint8Array(this.port.input(0)!.buffer.slice(offset, offset + length));
    this.rx.flush();
    return bytes;
  }

  close(): void {
    this.side.close();
    this.epoll.close();
  }
}
