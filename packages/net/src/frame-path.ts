import type { Peer } from '@ivshmem/transport';
import {
  type AnnouncedMtu,
  announceCapabilities,
  announcedCapabilities,
  announcedMtu,
  announceMtu,
  commonCapabilities,
  longestFrame,
} from '@ivshmem/transport/protocol';
import { Counter } from './counters.ts';
import { DROPPED, type LinkEnd, NOTHING } from './ends/link-end.ts';

/** Frames in a burst: one store of the index and one decision about the doorbell for all of them. */
const BURST_FRAMES = 64;
/** A burst ends early after this many bytes, so that the peer can start on large frames. */
export const BURST_BYTES = 0x20000;

/** What a data path needs to know of the MTU. */
export interface PathMtu {
  /** The MTU to announce in this side's section; read each time the section is initialised. */
  own(): AnnouncedMtu;
  /**
   * Decides on the MTU, given what the peer announces, and sets it on the interface. Returns it in bytes, 68 …
   * layout.maxMtu. Throws SystemCallError.
   */
  agree(peer: AnnouncedMtu | null): number;
}

/**
 * The data path of a link: frames from its end into this side's output section, and from the other side's output section
 * to the end. It allocates nothing, and copies only if the end does.
 *
 * Frames move only while {@link poll} runs.
 */
export class FramePath {
  readonly #peer: Peer;
  readonly #end: LinkEnd;
  readonly #counters: Float64Array;
  readonly #mtu: PathMtu;
  #capabilities = 0;
  /** What the peer announced at the last start. */
  #peerMtu: AnnouncedMtu | null = null;
  /** The end may have frames: it had an event, or has received frames that it may have answered. */
  #endReady = false;
  /** No room in the ring: frames wait at the end until the peer has completed some. */
  #full = false;

  /** Takes ownership of the end. `counters`: see `counters.ts`. */
  constructor(peer: Peer, end: LinkEnd, mtu: PathMtu, counters: Float64Array) {
    this.#peer = peer;
    this.#end = end;
    this.#mtu = mtu;
    this.#counters = counters;
  }

  /** Announces what this side can receive; called before READY is published. */
  announce(): void {
    const { own, layout } = this.#peer;
    const { capabilities } = this.#end;
    if (capabilities !== 0) announceCapabilities(own, layout, capabilities);
    announceMtu(own, layout, this.#mtu.own());
  }

  /** Reads the peer's announcements; from now on, frames may be moved. Throws SystemCallError. */
  start(): void {
    const { input, layout } = this.#peer;
    this.#peerMtu = announcedMtu(input, layout);
    this.#capabilities = commonCapabilities(this.#end.capabilities, announcedCapabilities(input, layout));
    const mtu = this.#mtu.agree(this.#peerMtu);
    this.#end.start(this.#capabilities, longestFrame(mtu, this.#peerMtu));
    this.#full = false;
    this.#endReady = true;
  }

  /** From now on, frames must not be moved. */
  stop(): void {
    this.#end.stop();
  }

  /**
   * The MTU that this side announces has changed. Returns true if the link has to be reset so that the peer reads it; a
   * peer that announces no MTU does not read one either.
   */
  renewMtu(): boolean {
    if (!this.#peer.running || this.#peerMtu !== null) return true;
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

  /** Whether the ring has no room for frames of the end. */
  get full(): boolean {
    return this.#peer.running && this.#full;
  }

  /**
   * Moves a burst in each direction. Returns whether anything moved; if not, call {@link sleep}. Throws SystemCallError if
   * the end no longer exists.
   */
  poll(): boolean {
    const peer = this.#peer;
    if (!peer.running) {
      if (this.#endReady) this.#drainEnd();
      return false;
    }
    const received = this.#end.accepts ? this.#receive() : 0;
    // The end may have answered.
    if (received > 0) this.#endReady = true;
    const sent = this.#endReady ? this.#transmit() : 0;
    if (peer.flush()) {
      this.#counters[Counter.doorbellsSent]!++;
    } else if (received + sent > 0) {
      this.#counters[Counter.doorbellsSuppressed]!++;
    }
    return received + sent > 0;
  }

  /** Requests interrupts from the peer. Returns false if there is work again: {@link poll} first. */
  sleep(): boolean {
    const peer = this.#peer;
    if (!peer.running) return true;
    const waited = this.#full;
    if (waited && !peer.tx.waitForRoom(this.#end.slotSize)) {
      this.#full = false;
      this.#endReady = true;
    }
    const idle = peer.sleep(this.#end.accepts);
    return idle && waited === this.#full;
  }

  /** A sleep has timed out without an event: see Peer.overslept. */
  overslept(): void {
    if (this.#peer.overslept()) this.#counters[Counter.doorbellsSent]!++;
  }

  #receive(): number {
    const { rx } = this.#peer;
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
    const { tx } = this.#peer;
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

  /** With the carrier off the kernel sends nothing more, but earlier frames may still be queued: discards them. */
  #drainEnd(): void {
    this.#endReady = false;
    for (let i = 0; i < BURST_FRAMES && this.#end.discard(); i++);
  }

  /** Closes the end. {@link poll} must not be called any more. */
  close(): void {
    this.#end.close();
  }
}
