import type { Tap } from '@ivshmem/linux/network';
import type { Port, Section } from '@ivshmem/transport';
import {
  type AnnouncedMtu,
  announceCapabilities,
  announcedCapabilities,
  announcedMtu,
  announceMtu,
  commonCapabilities,
  type DataPath,
  HeaderFault,
  longestFrame,
  type RingLayout,
  RxQueue,
  TxQueue,
  Violation,
} from '@ivshmem/transport/protocol';
import { Counter } from './counters.ts';
import { DROPPED, NOTHING, TapCrossing } from './ends/tap.ts';
import { ownCapabilities } from './offload.ts';

/** Frames in a burst: one store of the index and one decision about the doorbell for all of them. */
const BURST_FRAMES = 64;
/** A burst ends early after this many bytes, so that the peer can begin with large frames. */
const BURST_BYTES = 0x20000;
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
 * The data path of a link: frames from the TAP into its own output section, and from the peer's output section to
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
  readonly #counters: Float64Array;
  readonly #own: Section;
  readonly #input: Section;
  readonly #layout: RingLayout;
  readonly #crossing: TapCrossing;
  readonly #tx: TxQueue;
  readonly #rx: RxQueue;
  readonly #mtu: PathMtu;
  /** What this side announces that it can receive. */
  readonly #ownCapabilities: number;
  #capabilities = 0;
  /** What the peer announced at the last start. */
  #peerMtu: AnnouncedMtu | null = null;
  #running = false;
  /** The TAP may have frames: an event or an answer to what it was given promises some. */
  #tapReady = false;
  /** No room in the ring: the TAP has to wait until the peer has completed some frames. */
  #full = false;
  /** Time to the next interrupt for a sender that may have missed one, in ms; -1: none is due. */
  #reminder = -1;
  #sleepLimit = -1;

  /** Both sections must exist. */
  constructor(options: {
    port: Port;
    peer: number;
    own: Section;
    input: Section;
    layout: RingLayout;
    tap: Tap;
    mtu: PathMtu;
    counters: Float64Array;
  }) {
    const { port, peer, own, input, layout, tap, mtu } = options;
    this.#port = port;
    this.#peer = peer;
    this.#vector = port.vectors > 1 ? 1 : 0;
    this.#tap = tap;
    this.#counters = options.counters;
    this.#own = own;
    this.#input = input;
    this.#layout = layout;
    this.#mtu = mtu;
    this.#ownCapabilities = ownCapabilities(tap, layout);
    this.#tx = new TxQueue(own, input, layout, port.dirtyOutput);
    this.#rx = new RxQueue(own, input, layout);
    this.#crossing = new TapCrossing(tap, own, input, options.counters);
  }

  initialise(): void {
    this.#tx.initialise();
    this.#rx.initialise();
    if (this.#ownCapabilities !== 0) announceCapabilities(this.#own, this.#layout, this.#ownCapabilities);
    announceMtu(this.#own, this.#layout, this.#mtu.own());
  }

  start(): void {
    const announced = announcedCapabilities(this.#input, this.#layout);
    this.#peerMtu = announcedMtu(this.#input, this.#layout);
    this.#capabilities = commonCapabilities(this.#ownCapabilities, announced);
    const mtu = this.#mtu.agree(this.#peerMtu);
    this.#crossing.begin(this.#capabilities, longestFrame(mtu, this.#peerMtu));
    this.violation = Violation.NONE;
    this.#full = false;
    this.#tapReady = true;
    this.#running = true;
  }

  stop(): void {
    this.#running = false;
    this.#crossing.end();
  }

  /**
   * What this side announces about the MTU has changed. Returns whether the peer has to read it, which it does only after
   * a reset of the link; a peer that does not announce an MTU does not read one either.
   */
  renewMtu(): boolean {
    if (!this.#running || this.#peerMtu !== null) return true;
    this.#crossing.longest = longestFrame(this.#mtu.agree(null), null);
    return false;
  }

  /** What both sides can receive, bits of Capability, as of the last start. */
  get capabilities(): number {
    return this.#capabilities;
  }

  /** What was wrong with the first header that had to be refused since the last start; NONE when asked again. */
  takeHeaderFault(): HeaderFault {
    const { fault } = this.#crossing;
    this.#crossing.fault = HeaderFault.NONE;
    return fault;
  }

  /** How many frames of the peer, one after the other, have been refused for their headers since the last start. */
  get refusedInARow(): number {
    return this.#crossing.refusedInARow;
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
    if (received > 0) {
      this.#tapReady = true;
      this.#reminder = FIRST_REMINDER;
    }
    const sent = this.#tapReady ? this.#transmit() : 0;
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
    let idle = this.#rx.waitForFrames();
    this.#sleepLimit = this.#reminder !== -1 && this.#rx.mayBeAwaited() ? this.#reminder : -1;
    if (this.#full) {
      this.#full = this.#tx.waitForRoom(this.#crossing.slotSize);
      if (!this.#full) {
        this.#tapReady = true;
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
    const crossing = this.#crossing;
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
      if (!crossing.deliver(rx.offset, length)) continue;
      delivered++;
      bytes += length;
    }
    if (frames > 0) {
      this.#counters[Counter.rxFrames]! += frames;
      this.#counters[Counter.rxBytes]! += bytes - delivered * crossing.headerSize;
    }
    return frames;
  }

  #transmit(): number {
    const tx = this.#tx;
    const crossing = this.#crossing;
    const slotSize = crossing.slotSize;
    let frames = 0;
    let bytes = 0;
    tx.reclaim();
    for (let i = 0; i < BURST_FRAMES && bytes < BURST_BYTES; i++) {
      const slot = tx.reserve(slotSize);
      this.#full = slot === -1;
      if (this.#full) {
        this.#tapReady = false;
        this.#counters[Counter.ringFull]!++;
        break;
      }
      const length = crossing.fetch(slot);
      if (length === NOTHING) {
        this.#tapReady = false;
        break;
      }
      if (length === DROPPED) continue;
      tx.commit(length);
      frames++;
      bytes += length;
    }
    if (frames > 0) {
      this.#counters[Counter.txFrames]! += frames;
      this.#counters[Counter.txBytes]! += bytes - frames * crossing.headerSize;
    }
    return frames;
  }

  /** With the carrier off the kernel sends nothing, but what it sent before may still be there. */
  #drainTap(): void {
    this.#tapReady = false;
    for (let i = 0; i < BURST_FRAMES && this.#crossing.discard(); i++);
  }

  /** Unmaps what is its own. {@link poll} must not be called any more. */
  close(): void {
    this.#running = false;
    this.#crossing.close();
  }
}
