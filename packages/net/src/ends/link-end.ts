import type { Section } from '@ivshmem/transport';
import type { HeaderFault, RingLayout } from '@ivshmem/transport/protocol';

/** What {@link LinkEnd.fetch} returns if there is no frame, and if there was one that had to be dropped. */
export const NOTHING = -1;
export const DROPPED = 0;

/** The rings' memory, as an end needs it. */
export interface EndMemory {
  /** This side's output section, writable. */
  readonly own: Section;
  /** The peer's output section, read-only. The peer can change any byte of it at any time. */
  readonly peer: Section;
  readonly layout: RingLayout;
}

/**
 * One end of a link: the source of the frames sent to the peer, and the destination of those received from it. The data
 * path (`frame-path.ts`) owns the rings and calls the end for each frame; an end never touches descriptors or indices.
 * `tap.ts` is a TAP interface, `program.ts` a program's own frames.
 *
 * An end counts the frames that it drops, in the counters of `counters.ts`. Its methods must not allocate for each frame.
 */
export interface LinkEnd {
  /** The offloads that this end can receive, bits of Capability; announced to the peer. */
  readonly capabilities: number;
  /** Bytes that precede each frame in the rings: {@link FRAME_HEADER_SIZE} or 0, as agreed with the peer. */
  readonly headerSize: number;
  /** Size that a slot must have for {@link fetch}, in bytes. */
  readonly slotSize: number;
  /** The longest frame that {@link fetch} may send, in bytes, without header; segments to be cut later are exempt. */
  longest: number;
  /** False while the end has no room for frames of the peer: they stay in the ring, which holds the peer back. */
  readonly accepts: boolean;
  /** How many frames in a row were rejected because of their headers. */
  readonly refusedInARow: number;
  /** What was wrong with the first rejected header since the last call or start; NONE if there was none. */
  takeHeaderFault(): HeaderFault;

  /** Calls `ready` whenever {@link fetch} may have frames. Throws SystemCallError. */
  listen(ready: () => void): void;
  /** While `on`, events of this end must not wake the thread, since the ring has no room for its frames. */
  mute(on: boolean): void;
  /**
   * The data path starts, with a peer that has these capabilities in common with this end. `longest` as above. Throws
   * SystemCallError.
   */
  start(capabilities: number, longest: number): void;
  /** The data path has stopped: the next peer may have other capabilities. */
  stop(): void;
  /** Whether frames can reach the peer. Throws SystemCallError. */
  carrier(on: boolean): void;
  /**
   * Puts the next frame into `slot`, an offset in this side's section. Returns how many bytes of it are to be sent,
   * with header, or {@link NOTHING} or {@link DROPPED}. Throws SystemCallError if the end no longer exists.
   */
  fetch(slot: number): number;
  /**
   * Takes the frame of `length` bytes, with header, at `offset` of the peer's section. The range has been checked, the
   * content has not. Returns false if the frame was dropped and counted.
   */
  deliver(offset: number, length: number): boolean;
  /** Drops the next frame while there is no data path. Returns false if there is none. Throws as {@link fetch} does. */
  discard(): boolean;
  /** Releases the end's own resources. No other method may be called afterwards. */
  close(): void;
}
