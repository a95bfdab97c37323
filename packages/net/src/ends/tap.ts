import { EAGAIN, EINTR, EIO, errno, read, readv, SystemCallError, write, writev } from '@ivshmem/linux';
import { mapPrivate } from '@ivshmem/linux/memory';
import type { Tap } from '@ivshmem/linux/network';
import type { Section } from '@ivshmem/transport';
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
import { tapOffloads } from '../offload.ts';

/** The longest frame that is passed on to the TAP, in bytes. */
const MAX_FRAME = MAX_MTU + FRAME_OVERHEAD;

/** What {@link TapCrossing.fetch} returns where the TAP has nothing, and where what it had was dropped. */
export const NOTHING = -1;
export const DROPPED = 0;

// Private memory for system calls: the header of a frame that comes from the TAP and of one that goes there, and the
// iovecs for header and frame, {u64 address, u64 length} each.
const OUTGOING_HEADER = 0;
const INCOMING_HEADER = 16;
const OUTGOING_VECTOR = 32;
const INCOMING_VECTOR = 64;
/** Where the beginning of frames goes that nobody wants. */
const DISCARDED = 128;
const SCRATCH_SIZE = 256;

/**
 * How frames cross the TAP: one system call each, straight into the own output section and straight out of the peer's.
 *
 * Where both sides can receive offloads, a header stands before each frame in the rings, as it does at the TAP. Else
 * the TAP's headers stay on this side. A TAP without headers has none to agree upon.
 */
export class TapCrossing {
  /** Bytes that stand before each frame in the rings. */
  headerSize = 0;
  /** Bytes that a slot must have for {@link fetch}. */
  slotSize = 0;
  /** The first fault of a header that the peer has sent since {@link begin}; whoever reports it takes it away. */
  fault: HeaderFault = HeaderFault.NONE;
  /** How many frames in a row have been refused for their headers. */
  refusedInARow = 0;

  readonly #tap: Tap;
  readonly #fd: number;
  readonly #counters: Float64Array;
  /** The longest frame that is no segment to be cut, in bytes, without its header. */
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
  /** Whether it may send segments that are to be cut. */
  #large = false;
  /** Whether the TAP's headers stay here, since the peer knows none. */
  #keepsHeader = false;
  #faulty = false;

  constructor(tap: Tap, own: Section, peer: Section, counters: Float64Array) {
    this.#tap = tap;
    this.#fd = tap.fd;
    this.#counters = counters;
    this.#ownAddress = own.address;
    this.#peerAddress = peer.address;
    this.#own8 = new Uint8Array(own.buffer);
    this.#peer8 = new Uint8Array(peer.buffer);
    const { address } = this.#scratch;
    setPart(this.#outgoingVector, 0, address + OUTGOING_HEADER, FRAME_HEADER_SIZE);
    setPart(this.#incomingVector, 0, address + INCOMING_HEADER, FRAME_HEADER_SIZE);
  }

  /**
   * Frames go to, and come from, a peer with which these capabilities are common. Frames from the TAP have up to
   * `longest` bytes, segments to be cut aside. Throws SystemCallError.
   */
  begin(capabilities: number, longest: number): void {
    this.#large = (capabilities & (Capability.TSO | Capability.USO)) !== 0;
    this.headerSize = capabilities & Capability.VNET_HDR ? FRAME_HEADER_SIZE : 0;
    this.longest = longest;
    this.#agreed = agreedGsoTypes(capabilities);
    this.#keepsHeader = this.#tap.vnetHeader && this.headerSize === 0;
    this.#incoming.fill(0);
    this.fault = HeaderFault.NONE;
    this.#faulty = false;
    this.refusedInARow = 0;
    if (this.#tap.vnetHeader) this.#tap.setOffload(tapOffloads(capabilities));
  }

  /** From now on, frames from the TAP have up to so many bytes, without a header, and segments to be cut aside. */
  set longest(bytes: number) {
    this.#maxFrame = bytes;
    // One more byte shows that a frame was longer.
    this.slotSize = (this.#large ? MAX_HEADED_FRAME : this.headerSize + bytes) + 1;
  }

  /** The kernel leaves nothing undone any more: nobody knows what the next peer can do. */
  end(): void {
    if (!this.#tap.vnetHeader) return;
    try {
      this.#tap.setOffload(0);
    } catch {
      // An interface that is gone leaves nothing undone.
    }
  }

  /**
   * Takes a frame from the TAP into `slot` of the own section. Returns how many bytes of it are to be sent,
   * {@link NOTHING} or {@link DROPPED}. Throws SystemCallError where the TAP is gone.
   */
  fetch(slot: number): number {
    if (this.#keepsHeader) return this.#fetchWithoutHeader(slot);
    const length = read(this.#fd, this.#ownAddress + slot, this.slotSize);
    if (length < 0) return this.#nothing();
    if (this.headerSize > 0) {
      const gsoType = this.#own8[slot + GSO_TYPE_OFFSET]!;
      if (gsoType !== GsoType.NONE) {
        const agreed = this.#agreed[gsoType] === 1;
        if (!agreed || !(this.#own8[slot + FLAGS_OFFSET]! & FrameFlag.NEEDS_CSUM)) {
          // Left undone by the kernel for the peer before this one.
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

  /**
   * Gives the TAP the frame of `length` bytes at `offset` of the peer's section. Returns whether the kernel has taken
   * it; else it was dropped and counted.
   */
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

  /** Checks a copy of the header, which is then what the kernel gets: the peer can change its own at any time. */
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
      this.fault = fault;
    }
    return false;
  }

  /** Takes a frame from the TAP and drops it. Returns false where there is none. Throws as {@link fetch} does. */
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

  /** EIO: the interface is down, and has nothing to send. */
  #nothing(): typeof NOTHING {
    const error = errno();
    if (error === EAGAIN || error === EINTR || error === EIO) return NOTHING;
    throw new SystemCallError('read', `interface ${this.#tap.name}`, error, 'it has been deleted');
  }

  /** Unmaps what is its own. No other method may be called any more. */
  close(): void {
    this.#scratch.close();
  }
}

/** Fills in an iovec; the conversion to 32 bits cuts off the upper half, and the fraction. */
function setPart(vector: Uint32Array, part: 0 | 1, address: number, length: number): void {
  vector[4 * part] = address;
  vector[4 * part + 1] = address / 2 ** 32;
  vector[4 * part + 2] = length;
}
