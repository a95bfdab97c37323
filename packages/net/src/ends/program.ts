import { FRAME_OVERHEAD, HeaderFault, MAX_MTU, MIN_FRAME } from '@ivshmem/transport/protocol';
import { Counter } from '../counters.ts';
import { BURST_BYTES } from '../frame-path.ts';
import { DROPPED, type EndMemory, type LinkEnd, NOTHING } from './link-end.ts';

/** The longest frame that is accepted from the peer, in bytes. */
const MAX_FRAME = MAX_MTU + FRAME_OVERHEAD;

/** Placeholder for the rings' memory between sessions. */
const NO_MEMORY = new Uint8Array(0);

/** The frames of one call of {@link ProgramEnd.send}. */
interface Batch {
  readonly frames: readonly Uint8Array[];
  /** How many of them are in the ring. */
  sent: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
  /** The batch to be sent after this one. */
  next: Batch | undefined;
}

/**
 * A program's own frames. Each is copied once: when sent, into this side's output section; when received, into private
 * memory, since a mapped section is unmapped with its port and the peer can change it at any time.
 *
 * It can be reused as the end of later sessions: frames that are still to be sent wait for the next one.
 */
export class ProgramEnd implements LinkEnd {
  /** A program neither computes checksums nor cuts segments for its peer. */
  readonly capabilities = 0;
  readonly headerSize = 0;
  readonly refusedInARow = 0;
  /** Whether the program has requested frames since the last burst. */
  wanted = false;
  longest = 0;

  readonly #counters: Float64Array;
  #ready = () => {};
  #carrier = false;
  #own = NO_MEMORY;
  #peer = NO_MEMORY;
  /** Batches to be sent, a linked list. */
  #oldest: Batch | undefined;
  #newest: Batch | undefined;
  /** Why nothing can be sent any more. */
  #cancelled: Error | undefined;
  /** The last burst of the peer, and views of its frames. */
  readonly #memory = new Uint8Array(BURST_BYTES + MAX_FRAME);
  #used = 0;
  #burst: Uint8Array[] = [];

  /** `counters`: see `counters.ts`. */
  constructor(counters: Float64Array) {
    this.#counters = counters;
  }

  /** Makes this the end of a session, which closes it. */
  attach({ own, peer }: EndMemory): this {
    this.#own = new Uint8Array(own.buffer);
    this.#peer = new Uint8Array(peer.buffer);
    return this;
  }

  get slotSize(): number {
    return this.longest;
  }

  get accepts(): boolean {
    return this.wanted;
  }

  takeHeaderFault(): HeaderFault {
    return HeaderFault.NONE;
  }

  listen(ready: () => void): void {
    this.#ready = ready;
  }

  mute(): void {}

  start(_capabilities: number, longest: number): void {
    this.longest = longest;
  }

  stop(): void {}

  carrier(on: boolean): void {
    this.#carrier = on;
    if (on) this.#ready();
  }

  /**
   * Sends frames, in order, after those of earlier calls. Resolves when all of them are in the ring; until then they must
   * not change. Rejects with a RangeError for a frame of a wrong length, having sent those before it, and with the error
   * of {@link cancel}.
   */
  send(frames: readonly Uint8Array[]): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#cancelled !== undefined) throw this.#cancelled;
      for (const frame of frames) checkFrame(frame, this.longest);
      if (frames.length === 0) return resolve();
      const batch: Batch = { frames, sent: 0, resolve, reject, next: undefined };
      if (this.#newest === undefined) this.#oldest = batch;
      else this.#newest.next = batch;
      this.#newest = batch;
      this.#ready();
    });
  }

  fetch(slot: number): number {
    const batch = this.#oldest;
    if (batch === undefined || !this.#carrier) return NOTHING;
    const frame = batch.frames[batch.sent]!;
    try {
      // Check again: the MTU or the frame may have changed since it was queued.
      checkFrame(frame, this.longest);
      this.#own.set(frame, slot);
    } catch (error) {
      this.#counters[Counter.dropsOversize]!++;
      this.#remove(batch);
      batch.reject(error as Error);
      return DROPPED;
    }
    batch.sent++;
    if (batch.sent === batch.frames.length) {
      this.#remove(batch);
      batch.resolve();
    }
    return frame.length;
  }

  /** `batch` is the oldest. */
  #remove(batch: Batch): void {
    this.#oldest = batch.next;
    if (batch.next === undefined) this.#newest = undefined;
  }

  deliver(offset: number, length: number): boolean {
    if (length < MIN_FRAME) return this.#refuse(Counter.dropsRunt);
    if (length > MAX_FRAME) return this.#refuse(Counter.dropsOversize);
    const view = this.#memory.subarray(this.#used, this.#used + length);
    view.set(this.#peer.subarray(offset, offset + length));
    this.#used += length;
    this.#burst.push(view);
    return true;
  }

  #refuse(counter: number): false {
    this.#counters[counter]!++;
    return false;
  }

  /**
   * The frames delivered since the last call. They are valid until {@link wanted} is set again and frames are delivered.
   */
  takeBurst(): readonly Uint8Array[] {
    const burst = this.#burst;
    if (burst.length > 0) {
      this.#burst = [];
      this.#used = 0;
    }
    return burst;
  }

  /** Drops nothing: frames wait while there is no data path. */
  discard(): boolean {
    return false;
  }

  /** Rejects all pending and later calls of {@link send} with `error`. */
  cancel(error: Error): void {
    this.#cancelled = error;
    for (let batch = this.#oldest; batch !== undefined; batch = batch.next) batch.reject(error);
    this.#oldest = undefined;
    this.#newest = undefined;
  }

  /** Ends a session. */
  close(): void {
    this.#ready = () => {};
    this.#own = NO_MEMORY;
    this.#peer = NO_MEMORY;
  }
}

/** Throws RangeError, TypeError. */
function checkFrame(frame: Uint8Array, longest: number): void {
  if (!(frame instanceof Uint8Array)) throw new TypeError('frame: must be a Uint8Array');
  const { length } = frame;
  if (length >= MIN_FRAME && length <= longest) return;
  throw new RangeError(`frame of ${length} bytes: must have ${MIN_FRAME} to ${longest} bytes at this MTU`);
}
