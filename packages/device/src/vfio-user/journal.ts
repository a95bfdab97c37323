import type { Mapping } from '@ivshmem/linux/memory';
import { controlSize, MessageRecord, writeRights } from '@ivshmem/linux/socket';
import { decodeHeader, HEADER_SIZE, MAX_MESSAGE_FDS, MAX_MESSAGE_SIZE } from './messages.ts';

/** What is being done with the request in work. */
export const Phase = {
  /** It is being received. */
  READING: 0,
  /** It has been received, and is being executed. */
  EXECUTING: 1,
  /** Its reply is being sent. */
  REPLYING: 2,
} as const;

/** The most interrupt vectors of a PCI function: those of MSI-X. */
const MAX_VECTORS = 2048;

// The note of the record: u21 bytes done before the record's length, u2 phase, u1 negotiated, u1 reply with descriptors, u4
// descriptors of the request.
const DONE_MASK = (1 << 21) - 1;
const PHASE_SHIFT = 21;
const PHASE_MASK = 3;
const NEGOTIATED = 1 << 23;
const WITH_DESCRIPTORS = 1 << 24;
const DESCRIPTORS_SHIFT = 25;

/** Control messages, such as descriptors, were dropped. */
const MSG_CTRUNC = 8;

// Offsets in bytes.
const RIGHTS = MessageRecord.SIZE;
const ARRIVING = 128;
const REQUEST_SLOTS = 256;
const VECTOR_SLOTS = 4096;
const REQUEST = VECTOR_SLOTS + 4 * MAX_VECTORS;
/** A buffer for the largest message, and the next one on a page of its own. */
const BUFFER_SIZE = Math.ceil(MAX_MESSAGE_SIZE / 4096) * 4096;
const REPLY = REQUEST + BUFFER_SIZE;

/**
 * The request in work: how much of it has been received, or of its reply sent, in memory that may outlive this process. A
 * process that is killed at any point leaves a journal from which the next one continues: a part of a message that was
 * received is in it, a part of a reply that was sent is counted in it, by the system call that did so (see MessageRecord), and
 * a request that was being executed is executed again.
 */
export class Journal {
  /** Of the memory, in bytes. Zeros are a journal without a request. */
  static readonly SIZE = REPLY + BUFFER_SIZE;
  /** Room for the largest request. What is behind {@link done} is garbage. */
  readonly request: Uint8Array;
  /** Slot of each descriptor of the pending request in the descriptor store: see KeptEventFds. */
  readonly requestSlots: Uint32Array;
  /** Slot of the eventfd of each interrupt vector. */
  readonly vectorSlots: Uint32Array;
  readonly #record: MessageRecord;
  readonly #memory: Mapping;
  readonly #offset: number;
  readonly #reply: Uint8Array;
  readonly #replyView: DataView;
  readonly #arriving: Uint32Array;
  readonly #part: { address: number; length: number };

  /** Uses {@link SIZE} bytes of `memory` from `offset` (a multiple of 64) on. */
  constructor(memory: Mapping, offset: number) {
    const { buffer } = memory;
    this.#memory = memory;
    this.#offset = offset;
    this.#record = new MessageRecord(memory, offset);
    this.#arriving = new Uint32Array(buffer, offset + ARRIVING, 1);
    this.requestSlots = new Uint32Array(buffer, offset + REQUEST_SLOTS, MAX_MESSAGE_FDS);
    this.vectorSlots = new Uint32Array(buffer, offset + VECTOR_SLOTS, MAX_VECTORS);
    this.request = new Uint8Array(buffer, offset + REQUEST, MAX_MESSAGE_SIZE);
    this.#reply = new Uint8Array(buffer, offset + REPLY, MAX_MESSAGE_SIZE);
    this.#replyView = new DataView(buffer, offset + REPLY, HEADER_SIZE);
    this.#part = { address: 0, length: 0 };
  }

  /** One of {@link Phase}. */
  get phase(): number {
    return (this.#record.note >>> PHASE_SHIFT) & PHASE_MASK;
  }

  /** Bytes of the request that were received, or of the reply that were sent. */
  get done(): number {
    return (this.#record.note & DONE_MASK) + this.#record.length;
  }

  /** The client has sent VERSION, and the reply to it is in this journal or was sent. */
  get negotiated(): boolean {
    return (this.#record.note & NEGOTIATED) !== 0;
  }

  /** How many descriptors came with what was received of the request. */
  get descriptors(): number {
    const before = this.#record.note >>> DESCRIPTORS_SHIFT;
    return this.phase === Phase.READING && this.hasReceivedDescriptors ? before + this.#arriving[0]! : before;
  }

  /** Whether descriptors came with what the last {@link receive} has received. */
  get hasReceivedDescriptors(): boolean {
    return this.#record.length > 0 && (this.#record.flags & MSG_CTRUNC) !== 0;
  }

  /**
   * Receives up to `length` bytes of the request behind those that it has. If they come with descriptors, there are `arriving`
   * of them, which were stored before; the kernel closes what is received here. Returns the number of bytes, 0 at the end of the
   * stream, -1 if nothing is pending. Throws SystemCallError.
   */
  receive(fd: number, length: number, arriving: number): number {
    const start = this.done;
    if (this.#record.length > 0) this.#begin(Phase.READING, start, this.#flags(this.descriptors));
    this.#arriving[0] = arriving;
    this.#part.address = this.#memory.address + this.#offset + REQUEST + start;
    this.#part.length = length;
    return this.#record.receive(fd, this.#part);
  }

  /** The request is complete. */
  execute(): void {
    this.#begin(Phase.EXECUTING, this.done, this.#flags(this.descriptors));
  }

  /** The request was executed; its reply follows, with descriptors or not. */
  reply(bytes: Uint8Array, withDescriptors: boolean, negotiated: boolean): void {
    this.#reply.set(bytes);
    this.#begin(Phase.REPLYING, 0, (negotiated ? NEGOTIATED : 0) | (withDescriptors ? WITH_DESCRIPTORS : 0));
  }

  /**
   * Sends what is left of the reply, `fds` with its first byte. Returns whether all of it has been sent: the journal is ready
   * for the next request then. Throws SystemCallError.
   */
  send(fd: number, fds: readonly number[]): boolean {
    const size = this.#replyView.getUint32(4, true);
    for (;;) {
      const start = this.done;
      if (start >= size) break;
      if (this.#record.length > 0) this.#begin(Phase.REPLYING, start, this.#flags(0));
      this.#part.address = this.#memory.address + this.#offset + REPLY + start;
      this.#part.length = size - start;
      const rights =
        start === 0 && fds.length > 0 ? writeRights(this.#memory, this.#offset + RIGHTS, fds) : undefined;
      if (this.#record.send(fd, this.#part, rights) === 0) return false;
    }
    this.finish(this.negotiated);
    return true;
  }

  /** The request is over: it needs no reply, or that was sent. */
  finish(negotiated: boolean): void {
    this.#begin(Phase.READING, 0, negotiated ? NEGOTIATED : 0);
  }

  /** Forgets everything: there is another client. */
  clear(): void {
    this.#begin(Phase.READING, 0, 0);
    this.requestSlots.fill(0);
    this.vectorSlots.fill(0);
  }

  /**
   * For a journal of another process. Returns in one line what in it cannot be true; null if it can be continued. A reply with
   * descriptors of which nothing was sent is to be made again: they are not in the journal.
   */
  resume(): string | null {
    const { phase, done, descriptors } = this;
    if (phase > Phase.REPLYING) return `has a request in phase ${phase}`;
    if (descriptors > MAX_MESSAGE_FDS) return `has a request with ${descriptors} descriptors`;
    if (phase !== Phase.READING || done >= HEADER_SIZE) {
      const size = sizeOf(this.request);
      if (size === null) return 'has a request without a header';
      if (phase !== Phase.REPLYING && (done > size || (phase === Phase.EXECUTING && done !== size)))
        return `has ${done} bytes of a request of ${size}`;
    }
    if (phase !== Phase.REPLYING) return null;
    const size = this.#replyView.getUint32(4, true);
    if (size < HEADER_SIZE || size > MAX_MESSAGE_SIZE || done > size)
      return `has sent ${done} bytes of a reply of ${size}`;
    if (done === 0 && (this.#record.note & WITH_DESCRIPTORS) !== 0)
      this.#begin(Phase.EXECUTING, sizeOf(this.request)!, this.#flags(0) & NEGOTIATED);
    return null;
  }

  /** The flags of the note, with another number of descriptors. */
  #flags(descriptors: number): number {
    return (this.#record.note & (NEGOTIATED | WITH_DESCRIPTORS)) | (descriptors << DESCRIPTORS_SHIFT);
  }

  #begin(phase: number, done: number, flags: number): void {
    this.#record.begin((phase << PHASE_SHIFT) | done | flags);
  }
}

// Room for the control message of a reply.
if (RIGHTS + controlSize(1) > ARRIVING) throw new Error('the control message is too long');

function sizeOf(request: Uint8Array): number | null {
  try {
    return decodeHeader(request).size;
  } catch {
    return null;
  }
}
