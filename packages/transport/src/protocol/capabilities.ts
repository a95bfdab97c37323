import type { Section } from './memory-layout.ts';
import { FRAME_OVERHEAD, MAX_MTU, type RingLayout } from './ring-layout.ts';

// What a side can receive beyond plain frames, announced in words that peers without the extension leave at 0 and do not read.
// Source: protocol page, section 14.

/** Bits of avail.flags: what the owner of the section can receive. Bit 0 is not used here, since virtio defines it. */
export const Capability = {
  /** Frames preceded by a struct virtio_net_hdr, with checksums offloaded to the receiver. The other bits require it. */
  VNET_HDR: 1 << 1,
  /** TCP segments of up to 64 KiB, over IPv4 and IPv6. */
  TSO: 1 << 2,
  /** UDP payloads of many datagrams, over IPv4 and IPv6. */
  USO: 1 << 3,
} as const;

const KNOWN = Capability.VNET_HDR | Capability.TSO | Capability.USO;

/** The value of used.flags if avail.flags holds capabilities: "v1" in ASCII, with bit 0 clear. */
const ANNOUNCEMENT = 0x3176;

/** Size of the header that precedes each frame, in bytes. */
export const FRAME_HEADER_SIZE = 10;

/** The longest frame there is, in bytes, with the header before it. */
export const MAX_HEADED_FRAME = FRAME_HEADER_SIZE + MAX_MTU + FRAME_OVERHEAD;

/** Whether sections have room for frames of 64 KiB: four of them, as there is for frames of the largest MTU. */
export function fitsLargeFrames(layout: RingLayout): boolean {
  return MAX_HEADED_FRAME <= Math.floor(layout.dataSize / 4);
}

/** Announces `bits` in the side's own section, beside those that it has announced since the section was cleared. */
export function announce(own: Section, layout: RingLayout, bits: number): void {
  const words = ringWords(own, layout);
  words[layout.avail / 2]! |= bits;
  words[layout.used / 2] = ANNOUNCEMENT;
}

/** All bits that the peer announces, 0 for a peer that announces nothing; valid once it has published READY. */
export function announcedBits(peer: Section, layout: RingLayout): number {
  const words = ringWords(peer, layout);
  return words[layout.used / 2] === ANNOUNCEMENT ? words[layout.avail / 2]! : 0;
}

/** Everything before the data area of an output section, as 16-bit words. */
export function ringWords(section: Section, layout: RingLayout): Uint16Array {
  return new Uint16Array(section.buffer, 0, layout.data / 2);
}

/** Announces `capabilities` in the side's own section, which has just been cleared; before READY is published. */
export function announceCapabilities(own: Section, layout: RingLayout, capabilities: number): void {
  announce(own, layout, capabilities);
}

/** What the peer announces that it can receive, bits of {@link Capability}; valid once it has published READY. */
export function announcedCapabilities(peer: Section, layout: RingLayout): number {
  return announcedBits(peer, layout) & KNOWN;
}

/** What both sides can receive, and so may send. */
export function commonCapabilities(one: number, other: number): number {
  const common = one & other;
  return common & Capability.VNET_HDR ? common : 0;
}
