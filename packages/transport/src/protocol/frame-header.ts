import { Capability } from './capabilities.ts';
import { MIN_FRAME } from './ring-layout.ts';

// The header before each frame between two sides that announce Capability.VNET_HDR: struct virtio_net_hdr without
// num_buffers, {u8 flags, u8 gso_type, u16 hdr_len, u16 gso_size, u16 csum_start, u16 csum_offset}, little-endian.
// Source: protocol page, section 14; Virtual I/O Device specification, "Packet Transmission".

/** Bits of `flags`. */
export const FrameFlag = {
  /** The checksum covers csum_start to the end of the frame, and is to be put csum_offset bytes behind csum_start. */
  NEEDS_CSUM: 1,
  /** The checksum has been verified. */
  DATA_VALID: 2,
} as const;

/** Values of `gso_type`; ECN is a bit beside those of TCP. */
export const GsoType = { NONE: 0, TCPV4: 1, TCPV6: 4, UDP_L4: 5, ECN: 0x80 } as const;

/** Offsets in the header. */
export const FLAGS_OFFSET = 0;
export const GSO_TYPE_OFFSET = 1;

const IPV4_HEADER = 20;
const IPV6_HEADER = 40;
/** Bytes of the smallest TCP and UDP headers, and the offsets of their checksums. */
const TCP_HEADER = 20;
const TCP_CHECKSUM = 16;
const UDP_HEADER = 8;
const UDP_CHECKSUM = 6;

// Limits the number of packets that a frame is cut into: kernels need no more, and 64 KiB in single bytes would keep ours
// busy.
/** Bytes of TCP payload in each but the last. */
const MIN_TCP_PAYLOAD = 8;
const MAX_UDP_PACKETS = 128;

/** What can be wrong with a header. */
export const HeaderFault = {
  NONE: 0,
  /** An unknown flag. */
  FLAGS: 1,
  /** A segmentation offload that is unknown, or was not negotiated. */
  GSO_TYPE: 2,
  /** hdr_len is beyond the end of the frame. */
  HDR_LEN: 3,
  /** The checksum is not inside the frame, or in its Ethernet header. */
  CHECKSUM: 4,
  /** What is to be cut has no checksum to be computed, no room for its headers, or would be cut too small. */
  SEGMENTATION: 5,
} as const;

export type HeaderFault = (typeof HeaderFault)[keyof typeof HeaderFault];

const texts: Record<HeaderFault, string> = {
  [HeaderFault.NONE]: 'none',
  [HeaderFault.FLAGS]: 'unknown flags',
  [HeaderFault.GSO_TYPE]: 'a gso_type that was not agreed upon',
  [HeaderFault.HDR_LEN]: 'an hdr_len beyond the frame',
  [HeaderFault.CHECKSUM]: 'a checksum outside the frame',
  [HeaderFault.SEGMENTATION]: 'a segmentation that the frame does not allow',
};

/** What follows "a frame header has" in a log line. */
export function headerFaultText(fault: HeaderFault): string {
  return texts[fault];
}

/** By gso_type: 1 if both sides can receive it, given their common capabilities, else 0. */
export function agreedGsoTypes(capabilities: number): Uint8Array {
  const agreed = new Uint8Array(256);
  agreed[GsoType.NONE] = 1;
  if (capabilities & Capability.TSO) {
    for (const type of [GsoType.TCPV4, GsoType.TCPV6]) {
      agreed[type] = 1;
      agreed[type | GsoType.ECN] = 1;
    }
  }
  if (capabilities & Capability.USO) agreed[GsoType.UDP_L4] = 1;
  return agreed;
}

/**
 * What is wrong with the first ten bytes of `header`, which stand before a frame of `length` bytes (≥ 14, without the
 * header), if the sides have agreed on the gso_types of {@link agreedGsoTypes}. The bytes must be private: the
 * peer could change them after the check. Allocates nothing.
 */
export function checkFrameHeader(header: Uint8Array, length: number, agreed: Uint8Array): HeaderFault {
  const flags = header[FLAGS_OFFSET]!;
  const gsoType = header[GSO_TYPE_OFFSET]!;
  if ((flags & ~(FrameFlag.NEEDS_CSUM | FrameFlag.DATA_VALID)) !== 0) return HeaderFault.FLAGS;
  if (agreed[gsoType] !== 1) return HeaderFault.GSO_TYPE;
  if (u16(header, 2) > length) return HeaderFault.HDR_LEN;
  const needsChecksum = (flags & FrameFlag.NEEDS_CSUM) !== 0;
  const start = u16(header, 6);
  const offset = u16(header, 8);
  if (needsChecksum && (start < MIN_FRAME || start + offset + 2 > length)) return HeaderFault.CHECKSUM;
  if (gsoType === GsoType.NONE) return HeaderFault.NONE;
  const udp = gsoType === GsoType.UDP_L4;
  const gsoSize = u16(header, 4);
  const ipHeader = (gsoType & ~GsoType.ECN) === GsoType.TCPV6 ? IPV6_HEADER : IPV4_HEADER;
  const possible =
    needsChecksum &&
    (udp ? length - start - UDP_HEADER <= MAX_UDP_PACKETS * gsoSize : gsoSize >= MIN_TCP_PAYLOAD) &&
    start >= MIN_FRAME + ipHeader &&
    start + (udp ? UDP_HEADER : TCP_HEADER) <= length &&
    offset === (udp ? UDP_CHECKSUM : TCP_CHECKSUM);
  return possible ? HeaderFault.NONE : HeaderFault.SEGMENTATION;
}

function u16(bytes: Uint8Array, offset: number): number {
  return bytes[offset]! | (bytes[offset + 1]! << 8);
}
