import type { Section } from './memory-layout.ts';
import { type RingLayout, USED_ENTRY_SIZE } from './ring-layout.ts';
import { Violation } from './violation.ts';

/** Indices of the rings count modulo 2^16. */
export const U16 = 0xffff;

/** Common to both queues of a side: the rings of both output sections, and the positions of their parts. */
export abstract class Queue {
  /** How the peer violated the protocol. The queue then does nothing until it is initialised. */
  violation: Violation = Violation.NONE;

  protected readonly layout: RingLayout;
  /** Everything before the data area, by words of 16 and of 32 bits. */
  protected readonly own16: Uint16Array;
  protected readonly own32: Uint32Array;
  protected readonly peer16: Uint16Array;
  protected readonly peer32: Uint32Array;
  /** From an index to a position in a ring. */
  protected readonly mask: number;
  /** Positions of the parts of the rings: words of 16 bits. */
  protected readonly availIdx: number;
  protected readonly availRing: number;
  protected readonly usedEvent: number;
  protected readonly usedIdx: number;
  protected readonly availEvent: number;
  /** Words of 32 bits. */
  protected readonly usedRing: number;

  /** Over its own section (writable) and the peer's (read-only), both `layout.outputSectionSize` bytes long. */
  constructor(own: Section, peer: Section, layout: RingLayout) {
    this.layout = layout;
    this.own16 = new Uint16Array(own.buffer, 0, layout.data / 2);
    this.own32 = new Uint32Array(own.buffer, 0, layout.data / 4);
    this.peer16 = new Uint16Array(peer.buffer, 0, layout.data / 2);
    this.peer32 = new Uint32Array(peer.buffer, 0, layout.data / 4);
    this.mask = layout.length - 1;
    this.availIdx = layout.avail / 2 + 1;
    this.availRing = layout.avail / 2 + 2;
    this.usedEvent = this.availRing + layout.length;
    this.usedIdx = layout.used / 2 + 1;
    this.usedRing = layout.used / 4 + 1;
    this.availEvent = (layout.used + 4 + USED_ENTRY_SIZE * layout.length) / 2;
  }
}
