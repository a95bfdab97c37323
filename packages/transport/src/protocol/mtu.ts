import { announce, announcedBits, ringWords } from './capabilities.ts';
import type { Section } from './memory-layout.ts';
import { FRAME_OVERHEAD, MIN_MTU, type RingLayout } from './ring-layout.ts';

// The MTU of a link, announced in words that peers without the extension leave at 0 and do not read.
// Source: protocol page, section 15.

/** Bits of avail.flags, beside those of Capability: an MTU is announced; an administrator has set it. */
const MTU = 1 << 4;
const MTU_SET = 1 << 5;

/** The MTU towards a peer that announces none, in bytes: that of Ethernet, which every driver can receive. */
export const FOREIGN_MTU = 1500;

/** A side does not follow its peer below this, in bytes: Linux takes IPv6 off an interface with a smaller MTU. */
const LEAST_FOLLOWED = 1280;

const VLAN_TAG = 4;

/** The MTU that a side announces. */
export interface AnnouncedMtu {
  /** Bytes, 68 … 65535. */
  readonly bytes: number;
  /** An administrator has set it: the side that announces it keeps it, and the other side follows. */
  readonly set: boolean;
}

/** Position of the announced MTU: the 16-bit word after used_event, which is padding without the extension. */
function mtuWord(layout: RingLayout): number {
  return layout.avail / 2 + layout.length + 3;
}

/** Announces an MTU in the side's own section, which has just been cleared; before READY is published. */
export function announceMtu(own: Section, layout: RingLayout, mtu: AnnouncedMtu): void {
  ringWords(own, layout)[mtuWord(layout)] = mtu.bytes;
  announce(own, layout, mtu.set ? MTU | MTU_SET : MTU);
}

/** The MTU that the peer announces; null if it announces none, or less than 68. Valid once it has published READY. */
export function announcedMtu(peer: Section, layout: RingLayout): AnnouncedMtu | null {
  const bits = announcedBits(peer, layout);
  const bytes = ringWords(peer, layout)[mtuWord(layout)]!;
  return bits & MTU && bytes >= MIN_MTU ? { bytes, set: (bits & MTU_SET) !== 0 } : null;
}

/**
 * The MTU that a side uses which announces `own` and has read `peer`, in bytes. `largest` is the largest MTU that the
 * sections and its network interface allow, at least `own.bytes`.
 */
export function agreedMtu(own: AnnouncedMtu, peer: AnnouncedMtu | null, largest: number): number {
  if (own.set) return own.bytes;
  if (peer === null) return Math.min(own.bytes, FOREIGN_MTU);
  const wanted = Math.min(peer.bytes, peer.set ? largest : own.bytes);
  return Math.max(wanted, Math.min(own.bytes, LEAST_FOLLOWED));
}

/** The longest frame for `peer` at an MTU of `mtu` bytes: with two VLAN tags if it supports this extension, else one. */
export function longestFrame(mtu: number, peer: AnnouncedMtu | null): number {
  return mtu + FRAME_OVERHEAD + (peer === null ? 0 : VLAN_TAG);
}
