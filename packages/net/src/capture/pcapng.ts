// The pcapng format, as far as a capture needs it.
// Source: https://ietf-opsawg-wg.github.io/draft-ietf-opsawg-pcap/draft-ietf-opsawg-pcapng.html

const SECTION_HEADER = 0x0a0d0d0a;
const INTERFACE_DESCRIPTION = 1;
const INTERFACE_STATISTICS = 5;
const ENHANCED_PACKET = 6;
const BYTE_ORDER = 0x1a2b3c4d;
const ETHERNET = 1;

// Options. The same numbers mean different things in different blocks.
const COMMENT = 1;
const SHB_OS = 3;
const SHB_USERAPPL = 4;
const IF_NAME = 2;
const IF_DESCRIPTION = 3;
const IF_TSRESOL = 9;
const EPB_FLAGS = 2;
const EPB_DROPCOUNT = 4;
const ISB_STARTTIME = 2;
const ISB_ENDTIME = 3;
const ISB_IFRECV = 4;
const ISB_IFDROP = 5;

/** Units of 10^-9 s. */
const NANOSECONDS = 9;

/** Bits of the option epb_flags. */
export const PacketFlag = {
  /** The checksum has not been computed yet. */
  CHECKSUM_NOT_READY: 1 << 9,
  CHECKSUM_VALID: 1 << 10,
  /** The packet is longer than those that it is cut into later. */
  SEGMENTATION_OFFLOADED: 1 << 11,
} as const;

/** A block of bytes that grows. Numbers are little-endian. */
class Block {
  #bytes = Buffer.alloc(256);
  #length = 8;

  constructor(type: number) {
    this.#bytes.writeUInt32LE(type, 0);
  }

  u16(...values: readonly number[]): this {
    for (const value of values) this.#grow(2).writeUInt16LE(value, this.#length - 2);
    return this;
  }

  u32(...values: readonly number[]): this {
    for (const value of values) this.#grow(4).writeUInt32LE(value, this.#length - 4);
    return this;
  }

  /** A 64-bit number as two words, the upper one first. */
  timestamp(time: bigint): this {
    return this.u32(Number(time >> 32n), Number(time & 0xffffffffn));
  }

  /** With padding to 32 bits. */
  bytes(bytes: Uint8Array): this {
    const padding = -bytes.length & 3;
    this.#grow(bytes.length + padding).set(bytes, this.#length - bytes.length - padding);
    return this;
  }

  option(code: number, value: Uint8Array): this {
    return this.u16(code, value.length).bytes(value);
  }

  text(code: number, text: string | undefined): this {
    return text === undefined ? this : this.option(code, Buffer.from(text).subarray(0, 0xffff));
  }

  u64(code: number, value: number): this {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(value));
    return this.option(code, bytes);
  }

  /** With the end of options, if there are any, and the length at both ends, so that readers can go backwards. */
  finish(hasOptions: boolean): Uint8Array {
    if (hasOptions) this.u32(0);
    this.u32(0);
    this.#bytes.writeUInt32LE(this.#length, 4);
    this.#bytes.writeUInt32LE(this.#length, this.#length - 4);
    return this.#bytes.subarray(0, this.#length);
  }

  #grow(by: number): Buffer {
    this.#length += by;
    if (this.#length > this.#bytes.length) {
      const larger = Buffer.alloc(Math.max(this.#length, 2 * this.#bytes.length));
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    return this.#bytes;
  }
}

/** The beginning of a file. `application`: the program that writes it. */
export function sectionHeader(application: string, system?: string): Uint8Array {
  return new Block(SECTION_HEADER)
    .u32(BYTE_ORDER)
    .u16(1, 0)
    .u32(0xffffffff, 0xffffffff)
    .text(SHB_OS, system)
    .text(SHB_USERAPPL, application)
    .finish(true);
}

export interface CaptureInterface {
  readonly name: string;
  readonly description?: string;
  /** Maximum number of bytes of a packet that are captured; 0: no limit. */
  readonly snapLength?: number;
}

/** An Ethernet interface. They are numbered from 0, in the order of these blocks. Times are in ns. */
export function interfaceDescription({ name, description, snapLength = 0 }: CaptureInterface): Uint8Array {
  return new Block(INTERFACE_DESCRIPTION)
    .u16(ETHERNET, 0)
    .u32(snapLength)
    .text(IF_NAME, name)
    .text(IF_DESCRIPTION, description)
    .option(IF_TSRESOL, Uint8Array.of(NANOSECONDS))
    .finish(true);
}

export interface CapturedPacket {
  /** Number of the interface. */
  readonly interfaceId: number;
  /** In ns since 1970. */
  readonly time: bigint;
  /** The captured bytes. */
  readonly bytes: Uint8Array;
  /** Length of the packet, of which `bytes` may be only the beginning. */
  readonly length: number;
  /** Bits of {@link PacketFlag}. */
  readonly flags?: number;
  /** Packets of this interface that were lost since the one before. */
  readonly dropped?: number;
  readonly comments?: readonly string[];
}

/** A packet. */
export function enhancedPacket(packet: CapturedPacket): Uint8Array {
  const { interfaceId, time, bytes, length, flags = 0, dropped = 0, comments = [] } = packet;
  const block = new Block(ENHANCED_PACKET)
    .u32(interfaceId)
    .timestamp(time)
    .u32(bytes.length, length)
    .bytes(bytes);
  for (const comment of comments) block.text(COMMENT, comment);
  if (flags !== 0) block.u16(EPB_FLAGS, 4).u32(flags);
  if (dropped !== 0) block.u64(EPB_DROPCOUNT, dropped);
  return block.finish(comments.length > 0 || flags !== 0 || dropped !== 0);
}

export interface InterfaceStatistics {
  readonly interfaceId: number;
  /** Begin and end of the capture, in ns since 1970. */
  readonly start: bigint;
  readonly end: bigint;
  /** Packets that passed the interface, and those of them that were not captured. */
  readonly received: number;
  readonly dropped: number;
  readonly comment?: string | undefined;
}

/** What was captured and lost, at the end of a file. */
export function interfaceStatistics(statistics: InterfaceStatistics): Uint8Array {
  const { interfaceId, start, end, received, dropped, comment } = statistics;
  return new Block(INTERFACE_STATISTICS)
    .u32(interfaceId)
    .timestamp(end)
    .text(COMMENT, comment)
    .u16(ISB_STARTTIME, 8)
    .timestamp(start)
    .u16(ISB_ENDTIME, 8)
    .timestamp(end)
    .u64(ISB_IFRECV, received)
    .u64(ISB_IFDROP, dropped)
    .finish(true);
}
