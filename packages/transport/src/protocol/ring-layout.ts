import { LayoutError } from './memory-layout.ts';

// Layout of an output section under protocol 0x0001. Source: protocol page, section 1.

/** Everything in a section is aligned to cache lines of this many bytes. */
export const RING_ALIGN = 64;
/** Bytes of a descriptor: {u64 addr, u32 len, u16 flags, u16 next}. */
export const DESCRIPTOR_SIZE = 16;
/** Bytes of an entry of the used ring: {u32 id, u32 len}. */
export const USED_ENTRY_SIZE = 8;
/** The `len` that a completion carries. */
export const USED_LENGTH = 1;
/** Bytes that a frame may have beyond the MTU: Ethernet header and one VLAN tag. */
export const FRAME_OVERHEAD = 18;
/** The smallest Ethernet frame, in bytes: a header alone. */
export const MIN_FRAME = 14;
/** The smallest MTU, in bytes. */
export const MIN_MTU = 68;
/** The largest MTU of the protocol, in bytes, whatever the section's size. */
export const MAX_MTU = 65535;
/** The largest default MTU, in bytes. */
const MAX_DEFAULT_MTU = 16384;
/** Offsets in a section are kept in 32 bits, and one ArrayBuffer holds it: 4 GiB. */
const LARGEST_SECTION = 2 ** 32;
const LARGEST_QUEUE = 4096;
const SMALLEST_QUEUE = 64;
/** Used if no queue fits; the area is then still that of the smallest queue, as all drivers have it. */
const LAST_RESORT_QUEUE = 32;

/** Offsets and sizes in bytes, from the beginning of an output section. */
export interface RingLayout {
  /** Size of the output section. */
  readonly outputSectionSize: number;
  /** Queue length n: descriptors, and entries of each ring; a power of two, 32 … 4096. */
  readonly length: number;
  /** Descriptor table. */
  readonly descriptors: 0;
  /** Avail ring: {u16 flags, u16 idx, u16 ring[n], u16 used_event}. */
  readonly avail: number;
  /** Used ring: {u16 flags, u16 idx, {u32 id, u32 len} ring[n], u16 avail_event}. */
  readonly used: number;
  /** Data area: from here to the end of the section. `vrsize` in the drivers. */
  readonly data: number;
  /** Size of the data area. `qsize` in the drivers. */
  readonly dataSize: number;
  /** Default MTU of the protocol, below 68 in tiny sections. What a side uses depends on its peer, too: see mtu.ts. */
  readonly defaultMtu: number;
  /** The largest MTU that this section allows. */
  readonly maxMtu: number;
}

/** Rounds up to a multiple of {@link RING_ALIGN}. */
export function alignUp(bytes: number): number {
  return Math.ceil(bytes / RING_ALIGN) * RING_ALIGN;
}

function usedOffset(n: number): number {
  return alignUp(DESCRIPTOR_SIZE * n + 2 * (3 + n));
}

function ringsSize(n: number): number {
  return alignUp(usedOffset(n) + 6 + USED_ENTRY_SIZE * n);
}

/**
 * The layout that both sides derive from the size of an output section, in bytes, and from nothing else.
 * Throws {@link LayoutError} if the section is too small for protocol 0x0001, or larger than 4 GiB.
 */
export function ringLayout(outputSectionSize: number): RingLayout {
  if (outputSectionSize > LARGEST_SECTION) {
    throw new LayoutError(
      `output sections of ${outputSectionSize} bytes are too large: they may have up to 4G`,
    );
  }
  let length = LARGEST_QUEUE;
  let data = ringsSize(length);
  while (length >= SMALLEST_QUEUE && data >= Math.floor(outputSectionSize / 8)) {
    length /= 2;
    if (length >= SMALLEST_QUEUE) data = ringsSize(length);
  }
  const dataSize = outputSectionSize - data;
  if (dataSize < 4 * MIN_MTU) {
    throw new LayoutError(
      `output sections of ${outputSectionSize} bytes are too small for protocol 0x0001: they need 4K at least`,
    );
  }
  return {
    outputSectionSize,
    length: length < SMALLEST_QUEUE ? LAST_RESORT_QUEUE : length,
    descriptors: 0,
    avail: DESCRIPTOR_SIZE * (length < SMALLEST_QUEUE ? LAST_RESORT_QUEUE : length),
    used: usedOffset(length < SMALLEST_QUEUE ? LAST_RESORT_QUEUE : length),
    data,
    dataSize,
    defaultMtu: Math.min(MAX_DEFAULT_MTU, Math.floor(dataSize / 16)),
    maxMtu: Math.min(MAX_MTU, Math.floor(dataSize / 4)),
  };
}
