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
/** A burst ends early after this many bytes, so that the peer can begin with large frames. */
export const BURST_BYTES = 0x20000;
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
 * The data path of a link: frames from its end into this side's output section, and from the other side's output section
 * to the end, with no allocation and no copy but those of the end.
 *
 * It is driven by {@link poll}, and rests whenever that is not being called.
 */
export class FramePath {
  readonly #peer: Peer;
  readonly #end: LinkEnd;
  readonly #counters: Float64Array;
  readonly #mtu: PathMtu;
  #capabilities = 0;
  /** What the peer announced at the last start. */
  #peerMtu: AnnouncedMtu | null = null;
  /** The end may have frames: after an event, or since it may have answered a frame of the peer. */
  #endReady = false;
  /** No room in the ring: the end has to wait until the peer has completed some frames. */
  #full = false;

  /** Takes over the end. `counters`: see `counters.ts`. */
  constructor(peer: Peer, end: LinkEnd, mtu: PathMtu, counters: Float64Array) {
    this.#peer = peer;
    this.#end = end;
    this.#mtu = mtu;
    this.#counters = counters;
  }

  /** Before READY: announces what this side can receive. */
  announce(): void {
    const { own, layout } = this.#peer;
    const { capabilities } = this.#end;
    if (capabilities !== 0) announceCapabilities(own, layout, capabilities);
    announceMtu(own, layout, this.#mtu.own());
  }

  /** The peer's announcements can be read, and frames may be moved. Throws SystemCallError. */
  start(): void {
    const { input, layout } = this.#peer;
    this.#peerMtu = announcedMtu(input, layout);
    this.#capabilities = commonCapabilities(this.#end.capabilities, announcedCapabilities(input, layout));
    const mtu = this.#mtu.agree(this.#peerMtu);
    this.#end.start(this.#capabilities, longestFrame(mtu, this.#peerMtu));
    this.#full = false;
    this.#endReady = true;
  }

  /** Frames may not be moved any more. */
  stop(): void {
    this.#end.stop();
  }

  /**
   * What this side announces about the MTU has changed. Returns whether the peer has to read it, which it does only after
   * a reset of the link; a peer that does not announce an MTU does not read one either.
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

  /** Whether frames of the end would find no room in the ring. */
  get full(): boolean {
    return this.#peer.running && this.#full;
  }

  /**
   * Moves a burst in each direction. Returns whether anything moved; if not, call {@link sleep}. Throws SystemCallError if
   * the end is gone.
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

  /** Asks the peer for interrupts. Returns false if something has come in the meantime: {@link poll} again. */
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

  /** The time that a sleep may last has passed without an event: see Peer.overslept. */
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

  /** With the carrier off the kernel sends nothing, but what it sent before may still be there. */
  #drainEnd(): void {
    this.#endReady = false;
    for (let i = 0; i < BURST_FRAMES && this.#end.discard(); i++);
  }

  /** Closes the end. {@link poll} must not be called any more. */
  close(): void {
    this.#end.close();
  }
}
