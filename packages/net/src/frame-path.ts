import type { Port, Section } from '@ivshmem/transport';
import {
  type AnnouncedMtu,
  announceCapabilities,
  announcedCapabilities,
  announcedMtu,
  announceMtu,
  commonCapabilities,
  type DataPath,
  longestFrame,
  type RingLayout,
  RxQueue,
  TxQueue,
  Violation,
} from '@ivshmem/transport/protocol';
import { Counter } from './counters.ts';
import { DROPPED, type LinkEnd, NOTHING } from './ends/link-end.ts';

/** Frames in a burst: one store of the index and one decision about the doorbell for all of them. */
const BURST_FRAMES = 64;
/** A burst ends early after this many bytes, so that the peer can begin with large frames. */
export const BURST_BYTES = 0x20000;
/**
 * When a sender that may have missed the interrupt for its last completions gets another one, in ms after them or after
 * the interrupt before: at first, at last, and how many times as late each one is. One is enough, unless the sender's
 * CPU stands still with a lock held.
 */
const FIRST_REMINDER = 2;
const LAST_REMINDER = 200;
const REMINDER_GROWTH = 10;

/** What a data path needs to know of the MTU. */
export interface PathMtu {
  /** What this side announces in its section, in the life that begins now. */
  own(): AnnouncedMtu;
  /**
   * Decides on the MTU, given what the peer announces, and sets it on the interface. Returns it in bytes, 68 …
   * layout.maxMtu. Throws SystemCallError.
   */
  agree(peer: AnnouncedMtu | null): number;
}

/**
 * The data path of a link: frames from its end into its own output section, and from the peer's output section to
 * the end, with no allocation and no copy but those of the end.
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
  readonly #end: LinkEnd;
  readonly #counters: Float64Array;
  readonly #own: Section;
  readonly #input: Section;
  readonly #layout: RingLayout;
  readonly #tx: TxQueue;
  readonly #rx: RxQueue;
  readonly #mtu: PathMtu;
  #capabilities = 0;
  /** What the peer announced at the last start. */
  #peerMtu: AnnouncedMtu | null = null;
  #running = false;
  /** The end may have frames: after an event, or since it may have answered a frame of the peer. */
  #endReady = false;
  /** No room in the ring: the end has to wait until the peer has completed some frames. */
  #full = false;
  /** Time to the next interrupt for a sender that may have missed one, in ms; -1: none is due. */
  #reminder = -1;
  #sleepLimit = -1;

  /** Takes over the end. Both sections must exist. */
  constructor(options: {
    port: Port;
    peer: number;
    own: Section;
    input: Section;
    layout: RingLayout;
    end: LinkEnd;
    mtu: PathMtu;
    counters: Float64Array;
  }) {
    const { port, peer, own, input, layout, end, mtu } = options;
    this.#port = port;
    this.#peer = peer;
    this.#vector = port.vectors > 1 ? 1 : 0;
    this.#end = end;
    this.#counters = options.counters;
    this.#own = own;
    this.#input = input;
    this.#layout = layout;
    this.#mtu = mtu;
    this.#tx = new TxQueue(own, input, layout, port.dirtyOutput);
    this.#rx = new RxQueue(own, input, layout);
  }

  initialise(): void {
    this.#tx.initialise();
    this.#rx.initialise();
    const { capabilities } = this.#end;
    if (capabilities !== 0) announceCapabilities(this.#own, this.#layout, capabilities);
    announceMtu(this.#own, this.#layout, this.#mtu.own());
  }

  start(): void {
    const announced = announcedCapabilities(this.#input, this.#layout);
    this.#peerMtu = announcedMtu(this.#input, this.#layout);
    this.#capabilities = commonCapabilities(this.#end.capabilities, announced);
    const mtu = this.#mtu.agree(this.#peerMtu);
    this.#end.start(this.#capabilities, longestFrame(mtu, this.#peerMtu));
    this.violation = Violation.NONE;
    this.#full = false;
    this.#endReady = true;
    this.#running = true;
  }

  stop(): void {
    this.#running = false;
    this.#end.stop();
  }

  /**
   * What this side announces about the MTU has changed. Returns whether the peer has to read it, which it does only after
   * a reset of the link; a peer that does not announce an MTU does not read one either.
   */
  renewMtu(): boolean {
    if (!this.#running || this.#peerMtu !== null) return true;
    this.#end.longest = longestFrame(this.#mtu.agree(null), null);
    return false;
  }

  /** What both sides can receive, bits of Capability, as of the last start. */
  get capabilities(): number {
    return this.#capabilities;
  }

  carrier(on: boolean): void {
    this.#end.carrier(on);
  }

  /** The end may have frames. */
  endReady(): void {
    this.#endReady = true;
  }

  /** Whether frames of the end would find no room in the ring. */
  get full(): boolean {
    return this.#running && this.#full;
  }

  /**
   * Moves a burst in each direction. Returns whether anything moved; if not, call {@link sleep}.
   * Sets {@link violation} if the peer is at fault. Throws SystemCallError if the end is gone.
   */
  poll(): boolean {
    if (!this.#running) {
      if (this.#endReady) this.#drainEnd();
      return false;
    }
    const received = this.#end.accepts ? this.#receive() : 0;
    // The end may have answered.
    if (received > 0) {
      this.#endReady = true;
      this.#reminder = FIRST_REMINDER;
    }
    const sent = this.#endReady ? this.#transmit() : 0;
    const ringForCompletions = this.#rx.flush();
    const ringForFrames = this.#tx.flush();
    if (ringForCompletions || ringForFrames) {
      this.#ring();
    } else if (received + sent > 0) {
      this.#counters[Counter.doorbellsSuppressed]!++;
    }
    this.violation = this.#rx.violation || this.#tx.violation;
    return received + sent > 0;
  }

  /**
   * Asks the peer for interrupts. Returns false if something has come in the meantime: {@link poll} again. Sets
   * {@link violation} like that.
   */
  sleep(): boolean {
    if (!this.#running) return true;
    let idle = !this.#end.accepts || this.#rx.waitForFrames();
    this.#sleepLimit = this.#reminder !== -1 && this.#rx.mayBeAwaited() ? this.#reminder : -1;
    if (this.#full) {
      this.#full = this.#tx.waitForRoom(this.#end.slotSize);
      if (!this.#full) {
        this.#endReady = true;
        idle = false;
      }
    }
    this.violation = this.#rx.violation || this.#tx.violation;
    return idle && this.violation === Violation.NONE;
  }

  /**
   * How long to sleep at most after {@link sleep}, in ms; -1: until something happens. When nothing has happened for so
   * long, {@link overslept} is due.
   */
  get sleepLimit(): number {
    return this.#running ? this.#sleepLimit : -1;
  }

  /** Interrupts a sender that may have missed an interrupt. */
  overslept(): void {
    if (this.sleepLimit === -1) return;
    const next = this.#reminder * REMINDER_GROWTH;
    this.#reminder = next > LAST_REMINDER ? -1 : next;
    this.#ring();
  }

  #ring(): void {
    this.#port.ring(this.#peer, this.#vector);
    this.#counters[Counter.doorbellsSent]!++;
  }

  #receive(): number {
    const rx = this.#rx;
    const end = this.#end;
    let frames = 0;
    let delivered = 0;
    let bytes = 0;
    for (
      let waiting = Math.min(rx.available(), BURST_FRAMES);
      waiting > 0 && bytes < BURST_BYTES;
      waiting--
    ) {
      if (!rx.next()) break;
      frames++;
      const length = rx.length;
      if (!end.deliver(rx.offset, length)) continue;
      delivered++;
      bytes += length;
    }
    if (frames > 0) {
      this.#counters[Counter.rxFrames]! += frames;
      this.#counters[Counter.rxBytes]! += bytes - delivered * end.headerSize;
    }
    return frames;
  }

  #transmit(): number {
    const tx = this.#tx;
    const end = this.#end;
    const slotSize = end.slotSize;
    let frames = 0;
    let bytes = 0;
    tx.reclaim();
    for (let i = 0; i < BURST_FRAMES && bytes < BURST_BYTES; i++) {
      const slot = tx.reserve(slotSize);
      this.#full = slot === -1;
      if (this.#full) {
        this.#endReady = false;
        this.#counters[Counter.ringFull]!++;
        break;
      }
      const length = end.fetch(slot);
      if (length === NOTHING) {
        this.#endReady = false;
        break;
      }
      if (length === DROPPED) continue;
      tx.commit(length);
      frames++;
      bytes += length;
    }
    if (frames > 0) {
      this.#counters[Counter.txFrames]! += frames;
      this.#counters[Counter.txBytes]! += bytes - frames * end.headerSize;
    }
    return frames;
  }

  /** With the carrier off the kernel sends nothing, but what it sent before may still be there. */
  #drainEnd(): void {
    this.#endReady = false;
    for (let i = 0; i < BURST_FRAMES && this.#end.discard(); i++);
  }

  /** Closes the end. {@link poll} must not be called any more. */
  close(): void {
    this.#running = false;
    this.#end.close();
  }
}
