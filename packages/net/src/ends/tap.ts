import { EAGAIN, EINTR, EIO, errno, read, readv, SystemCallError, write, writev } from '@ivshmem/linux';
import { mapPrivate } from '@ivshmem/linux/memory';
import type { Tap } from '@ivshmem/linux/network';
import { EPOLLERR, EPOLLIN, type Poller } from '@ivshmem/linux/wait';
import {
  agreedGsoTypes,
  Capability,
  checkFrameHeader,
  FLAGS_OFFSET,
  FRAME_HEADER_SIZE,
  FRAME_OVERHEAD,
  FrameFlag,
  GSO_TYPE_OFFSET,
  GsoType,
  HeaderFault,
  MAX_HEADED_FRAME,
  MAX_MTU,
  MIN_FRAME,
} from '@ivshmem/transport/protocol';
import { Counter } from '../counters.ts';
import { ownCapabilities, tapOffloads } from '../offload.ts';
import { DROPPED, type EndMemory, type LinkEnd, NOTHING } from './link-end.ts';

/** The longest frame that is passed on to the TAP, in bytes. */
const MAX_FRAME = MAX_MTU + FRAME_OVERHEAD;

// Private memory for system calls: the header of a frame read from the TAP, the header of one written to it, and the
// iovecs for header and frame, {u64 address, u64 length} each.
const OUTGOING_HEADER = 0;
const INCOMING_HEADER = 16;
const OUTGOING_VECTOR = 32;
const INCOMING_VECTOR = 64;
/** Buffer for the beginning of frames that are dropped. */
const DISCARDED = 128;
const SCRATCH_SIZE = 256;

/** The options of a TAP end. The caller keeps ownership of the TAP. */
export interface TapEndOptions {
  readonly tap: Tap;
  readonly poller: Poller;
  /** See `counters.ts`. */
  readonly counters: Float64Array;
  /** Called when the TAP reports an error: its interface may have been deleted. */
  readonly failed: () => void;
}

/**
 * A TAP interface: one system call for each frame, straight into this side's output section and straight out of the
 * peer's.
 *
 * If both sides can receive offloads, a header precedes each frame in the rings, as it does at the TAP. If not, the TAP's
 * headers stay on this side. A TAP without headers announces no capabilities.
 */
export class TapEnd implements LinkEnd {
  readonly capabilities: number;
  readonly accepts = true;
  headerSize = 0;
  slotSize = 0;
  refusedInARow = 0;

  readonly #poller: Poller;
  readonly #failed: () => void;
  readonly #tap: Tap;
  readonly #fd: number;
  readonly #counters: Float64Array;
  /** The longest frame, other than segments to be cut later, in bytes without header. */
  #maxFrame = 0;
  readonly #ownAddress: number;
  readonly #peerAddress: number;
  readonly #own8: Uint8Array;
  readonly #peer8: Uint8Array;
  readonly #scratch = mapPrivate(SCRATCH_SIZE);
  readonly #outgoing = new Uint8Array(this.#scratch.buffer, OUTGOING_HEADER, FRAME_HEADER_SIZE);
  readonly #incoming = new Uint8Array(this.#scratch.buffer, INCOMING_HEADER, FRAME_HEADER_SIZE);
  readonly #outgoingVector = new Uint32Array(this.#scratch.buffer, OUTGOING_VECTOR, 8);
  readonly #incomingVector = new Uint32Array(this.#scratch.buffer, INCOMING_VECTOR, 8);
  /** By gso_type: whether the peer may use it. */
  #agreed = agreedGsoTypes(0);
  /** Whether the peer may send segments to be cut later. */
  #large = false;
  /** Whether the TAP's headers are kept from the peer, which does not support them. */
  #keepsHeader = false;
  /** The first fault since the last start, until it is reported; later ones are not kept. */
  #fault: HeaderFault = HeaderFault.NONE;
  #faulty = false;
  #muted = false;

  /** Throws SystemCallError. */
  constructor({ tap, poller, counters, failed }: TapEndOptions, { own, peer, layout }: EndMemory) {
    this.#tap = tap;
    this.#fd = tap.fd;
    this.#poller = poller;
    this.#failed = failed;
    this.#counters = counters;
    this.capabilities = ownCapabilities(tap, layout);
    this.#ownAddress = own.address;
    this.#peerAddress = peer.address;
    this.#own8 = new Uint8Array(own.buffer);
    this.#peer8 = new Uint8Array(peer.buffer);
    const { address } = this.#scratch;
    setPart(this.#outgoingVector, 0, address + OUTGOING_HEADER, FRAME_HEADER_SIZE);
    setPart(this.#incomingVector, 0, address + INCOMING_HEADER, FRAME_HEADER_SIZE);
  }

  listen(ready: () => void): void {
    this.#poller.add(this.#fd, EPOLLIN, (events) => {
      if ((events & EPOLLERR) !== 0) this.#failed();
      ready();
    });
  }

  mute(on: boolean): void {
    if (on === this.#muted) return;
    this.#muted = on;
    this.#poller.modify(this.#fd, on ? 0 : EPOLLIN);
  }

  start(capabilities: number, longest: number): void {
    this.#large = (capabilities & (Capability.TSO | Capability.USO)) !== 0;
    this.headerSize = capabilities & Capability.VNET_HDR ? FRAME_HEADER_SIZE : 0;
    this.longest = longest;
    this.#agreed = agreedGsoTypes(capabilities);
    this.#keepsHeader = this.#tap.vnetHeader && this.headerSize === 0;
    this.#incoming.fill(0);
    this.#fault = HeaderFault.NONE;
    this.#faulty = false;
    this.refusedInARow = 0;
    if (this.#tap.vnetHeader) this.#tap.setOffload(tapOffloads(capabilities));
  }

  get longest(): number {
    return this.#maxFrame;
  }

  set longest(bytes: number) {
    this.#maxFrame = bytes;
    // One more byte, to detect frames that are too long.
    this.slotSize = (this.#large ? MAX_HEADED_FRAME : this.headerSize + bytes) + 1;
  }

  /** Switches the TAP's offloads off, since the next peer may not support them. */
  stop(): void {
    if (!this.#tap.vnetHeader) return;
    try {
      this.#tap.setOffload(0);
    } catch {
      // A deleted interface sends no frames.
    }
  }

  carrier(on: boolean): void {
    try {
      this.#tap.setCarrier(on);
    } catch (error) {
      // A deleted interface has no carrier.
      if (on) throw error;
    }
  }

  takeHeaderFault(): HeaderFault {
    const fault = this.#fault;
    this.#fault = HeaderFault.NONE;
    return fault;
  }

  fetch(slot: number): number {
    if (this.#keepsHeader) return this.#fetchWithoutHeader(slot);
    const length = read(this.#fd, this.#ownAddress + slot, this.slotSize);
    if (length < 0) return this.#nothing();
    if (this.headerSize > 0) {
      const gsoType = this.#own8[slot + GSO_TYPE_OFFSET]!;
      if (gsoType !== GsoType.NONE) {
        const agreed = this.#agreed[gsoType] === 1;
        if (!agreed || !(this.#own8[slot + FLAGS_OFFSET]! & FrameFlag.NEEDS_CSUM)) {
          // Prepared by the kernel for the previous peer.
          return this.#drop(Counter.dropsLinkDown);
        }
        return length < this.slotSize ? length : this.#drop(Counter.dropsOversize);
      }
    }
    return length - this.headerSize <= this.#maxFrame ? length : this.#drop(Counter.dropsOversize);
  }

  #fetchWithoutHeader(slot: number): number {
    setPart(this.#outgoingVector, 1, this.#ownAddress + slot, this.slotSize);
    const length = readv(this.#fd, this.#scratch.address + OUTGOING_VECTOR, 2) - FRAME_HEADER_SIZE;
    if (length < 0) return this.#nothing();
    const header = this.#outgoing;
    if (header[GSO_TYPE_OFFSET] !== GsoType.NONE || (header[FLAGS_OFFSET]! & FrameFlag.NEEDS_CSUM) !== 0) {
      return this.#drop(Counter.dropsLinkDown);
    }
    return length <= this.#maxFrame ? length : this.#drop(Counter.dropsOversize);
  }

  deliver(offset: number, length: number): boolean {
    const headerSize = this.headerSize;
    const frameLength = length - headerSize;
    if (frameLength < MIN_FRAME) return this.#refuse(Counter.dropsRunt);
    if (frameLength > MAX_FRAME) return this.#refuse(Counter.dropsOversize);
    const from = this.#peerAddress + offset;
    if (!this.#tap.vnetHeader) {
      return write(this.#fd, from, length) === length || this.#refuse(Counter.dropsRefused);
    }
    if (headerSize > 0 && !this.#takeHeader(offset, frameLength)) return this.#refuse(Counter.dropsHeader);
    setPart(this.#incomingVector, 1, from + headerSize, frameLength);
    const written = writev(this.#fd, this.#scratch.address + INCOMING_VECTOR, 2);
    return written === FRAME_HEADER_SIZE + frameLength || this.#refuse(Counter.dropsRefused);
  }

  /** Checks a private copy of the header and passes that to the kernel: the peer can change the original at any time. */
  #takeHeader(offset: number, frameLength: number): boolean {
    const header = this.#incoming;
    const peer = this.#peer8;
    for (let i = 0; i < FRAME_HEADER_SIZE; i++) header[i] = peer[offset + i]!;
    const fault = checkFrameHeader(header, frameLength, this.#agreed);
    if (fault === HeaderFault.NONE) {
      this.refusedInARow = 0;
      return true;
    }
    this.refusedInARow++;
    if (!this.#faulty) {
      this.#faulty = true;
      this.#fault = fault;
    }
    return false;
  }

  discard(): boolean {
    const length = read(this.#fd, this.#scratch.address + DISCARDED, SCRATCH_SIZE - DISCARDED);
    if (length < 0) return this.#nothing() !== NOTHING;
    this.#drop(Counter.dropsLinkDown);
    return true;
  }

  #refuse(counter: number): false {
    this.#counters[counter]!++;
    return false;
  }

  #drop(counter: number): typeof DROPPED {
    this.#counters[counter]!++;
    return DROPPED;
  }

  /** Tells "no frame" from a failure. EIO: the interface is down, and has nothing to send. */
  #nothing(): typeof NOTHING {
    const error = errno();
    if (error === EAGAIN || error === EINTR || error === EIO) return NOTHING;
    throw new SystemCallError('read', `interface ${this.#tap.name}`, error, 'it has been deleted');
  }

  close(): void {
    this.#poller.remove(this.#fd);
    this.#scratch.close();
  }
}

/** Fills in an iovec. Storing to 32 bits truncates: it drops the upper half, and the fraction. */
function setPart(vector: Uint32Array, part: 0 | 1, address: number, length: number): void {
  vector[4 * part] = address;
  vector[4 * part + 1] = address / 2 ** 32;
  vector[4 * part + 2] = length;
}
