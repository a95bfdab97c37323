import {
  EAGAIN,
  EINTR,
  EIO,
  errno,
  type Mapping,
  mapPrivate,
  read,
  SystemCallError,
  type Tap,
  write,
} from '@ivshmem/linux';
import {
  type DataPath,
  FRAME_OVERHEAD,
  MAX_MTU,
  MIN_FRAME,
  type Port,
  type RingLayout,
  RxQueue,
  type Section,
  TxQueue,
  Violation,
} from '@ivshmem/transport';
import { Counter } from './counters.ts';

/** Frames in a burst: one store of the index and one decision about the doorbell for all of them. */
const BURST_FRAMES = 64;
/** A burst ends early after this many bytes, so that the peer can begin with large frames. */
const BURST_BYTES = 0x20000;
/** The longest frame that is passed on to the TAP, in bytes. */
const MAX_FRAME = MAX_MTU + FRAME_OVERHEAD;

/**
 * The data path of a link: frames from the TAP into the own output section, and from the peer's output section to
 * the TAP, by one system call each, with no copy and no allocation in between.
 *
 * It is driven by {@link poll}, and rests whenever that is not being called.
 */
export class FramePath implements DataPath {
  /** What the data path met that only a reset of the link can mend. */
  violation: Violation = Violation.NONE;

  readonly #port: Port;
  readonly #peer: number;
  /** The vector of ring events: 1, or 0 where there is only one. */
  readonly #vector: number;
  readonly #tap: Tap;
  readonly #fd: number;
  readonly #counters: Float64Array;
  readonly #ownAddress: number;
  readonly #peerAddress: number;
  readonly #tx: TxQueue;
  readonly #rx: RxQueue;
  /** The longest frame that the TAP may send, in bytes. */
  readonly #maxFrame: number;
  /** Takes frames that nobody wants. */
  readonly #discard: Mapping;
  #running = false;
  /** The TAP may have frames: an event or an answer to what it was given promises some. */
  #tapReady = false;
  /** No room in the ring: the TAP has to wait until the peer has completed some frames. */
  #full = false;

  /** `mtu` in bytes, 68 … layout.maxMtu. Both sections must exist. */
  constructor(options: {
    port: Port;
    peer: number;
    own: Section;
    input: Section;
    layout: RingLayout;
    tap: Tap;
    mtu: number;
    counters: Float64Array;
  }) {
    const { port, peer, own, input, layout, tap } = options;
    this.#port = port;
    this.#peer = peer;
    this.#vector = port.vectors > 1 ? 1 : 0;
    this.#tap = tap;
    this.#fd = tap.fd;
    this.#counters = options.counters;
    this.#ownAddress = own.address;
    this.#peerAddress = input.address;
    this.#tx = new TxQueue(own, input, layout);
    this.#rx = new RxQueue(own, input, layout);
    this.#maxFrame = options.mtu + FRAME_OVERHEAD;
    this.#discard = mapPrivate(this.#maxFrame + 1);
  }

  initialise(): void {
    this.#tx.initialise();
    this.#rx.initialise();
  }

  start(): void {
    this.violation = Violation.NONE;
    this.#full = false;
    this.#tapReady = true;
    this.#running = true;
  }

  stop(): void {
    this.#running = false;
  }

  carrier(on: boolean): void {
    try {
      this.#tap.setCarrier(on);
    } catch (error) {
      // An interface that is gone has no carrier.
      if (on) throw error;
    }
  }

  /** The TAP has frames. */
  tapReady(): void {
    this.#tapReady = true;
  }

  /** Whether frames of the TAP would find no room in the ring. */
  get full(): boolean {
    return this.#running && this.#full;
  }

  /**
   * Moves a burst in each direction. Returns whether anything moved; if not, {@link sleep} tells whether to sleep.
   * Sets {@link violation} where the peer is at fault. Throws SystemCallError where the TAP is gone.
   */
  poll(): boolean {
    if (!this.#running) {
      if (this.#tapReady) this.#drainTap();
      return false;
    }
    const received = this.#receive();
    // What the TAP was given may have made it answer.
    if (received > 0) this.#tapReady = true;
    const sent = this.#tapReady ? this.#transmit() : 0;
    const ringForCompletions = this.#rx.flush();
    const ringForFrames = this.#tx.flush();
    if (ringForCompletions || ringForFrames) {
      this.#port.ring(this.#peer, this.#vector);
      this.#counters[Counter.doorbellsSent]!++;
    } else if (received + sent > 0) {
      this.#counters[Counter.doorbellsSuppressed]!++;
    }
    this.violation = this.#rx.violation || this.#tx.violation;
    return received + sent > 0;
  }

  /**
   * Asks the peer for interrupts. Returns false where something has come in the meantime: {@link poll} again. Sets
   * {@link violation} like that.
   */
  sleep(): boolean {
    if (!this.#running) return true;
    let idle = this.#rx.waitForFrames();
    if (this.#full) {
      this.#full = this.#tx.waitForRoom(this.#maxFrame + 1);
      if (!this.#full) {
        this.#tapReady = true;
        idle = false;
      }
    }
    this.violation = this.#rx.violation || this.#tx.violation;
    return idle && this.violation === Violation.NONE;
  }

  #receive(): number {
    const rx = this.#rx;
    const counters = this.#counters;
    const fd = this.#fd;
    const base = this.#peerAddress;
    let frames = 0;
    let bytes = 0;
    for (
      let waiting = Math.min(rx.available(), BURST_FRAMES);
      waiting > 0 && bytes < BURST_BYTES;
      waiting--
    ) {
      if (!rx.next()) break;
      const length = rx.length;
      frames++;
      if (length < MIN_FRAME) counters[Counter.dropsRunt]!++;
      else if (length > MAX_FRAME) counters[Counter.dropsOversize]!++;
      else if (write(fd, base + rx.offset, length) === length) bytes += length;
      else counters[Counter.dropsRefused]!++;
    }
    if (frames > 0) {
      counters[Counter.rxFrames]! += frames;
      counters[Counter.rxBytes]! += bytes;
    }
    return frames;
  }

  #transmit(): number {
    const tx = this.#tx;
    const fd = this.#fd;
    const base = this.#ownAddress;
    const maxFrame = this.#maxFrame;
    let frames = 0;
    let bytes = 0;
    tx.reclaim();
    for (let i = 0; i < BURST_FRAMES && bytes < BURST_BYTES; i++) {
      const slot = tx.reserve(maxFrame + 1);
      this.#full = slot === -1;
      if (this.#full) {
        this.#tapReady = false;
        this.#counters[Counter.ringFull]!++;
        break;
      }
      const length = read(fd, base + slot, maxFrame + 1);
      if (length < 0) {
        this.#checkTap(errno());
        this.#tapReady = false;
        break;
      }
      if (length > maxFrame) {
        this.#counters[Counter.dropsOversize]!++;
        continue;
      }
      tx.commit(length);
      frames++;
      bytes += length;
    }
    if (frames > 0) {
      this.#counters[Counter.txFrames]! += frames;
      this.#counters[Counter.txBytes]! += bytes;
    }
    return frames;
  }

  /** With the carrier off the kernel sends nothing, but what it sent before may still be there. */
  #drainTap(): void {
    this.#tapReady = false;
    for (let i = 0; i < BURST_FRAMES; i++) {
      const length = read(this.#fd, this.#discard.address, this.#maxFrame + 1);
      if (length < 0) {
        this.#checkTap(errno());
        break;
      }
      this.#counters[Counter.dropsLinkDown]!++;
    }
  }

  /** EIO: the interface is down, and has nothing to send. */
  #checkTap(error: number): void {
    if (error === EAGAIN || error === EINTR || error === EIO) return;
    throw new SystemCallError('read', `interface ${this.#tap.name}`, error, 'the interface is gone');
  }

  /** Unmaps what is its own. {@link poll} must not be called any more. */
  close(): void {
    this.#running = false;
    this.#discard.close();
  }
}
