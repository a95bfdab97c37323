import { LayoutError, MAX_PEERS, type MemoryLayout } from './memory-layout.ts';

/** Vendor and device ID of ivshmem v2. Source: specification, "Header Registers". */
export const VENDOR_ID = 0x110a;
export const DEVICE_ID = 0x4106;
/** Offset of the command register, and its bits. */
export const COMMAND = 0x04;
export const COMMAND_MEMORY_SPACE = 1 << 1;
export const COMMAND_BUS_MASTER = 1 << 2;
/** The BARs. Source: specification, "Header Registers". */
export const REGISTER_BAR = 0;
export const MEMORY_BAR = 2;
/** Size of the register region in bytes: one page. */
export const REGISTER_REGION_SIZE = 4096;
/** Indexes of the registers, each of 32 bits, in the register region. Source: specification, "Register Region". */
export const ID_REGISTER = 0x00 / 4;
export const MAXIMUM_PEERS_REGISTER = 0x04 / 4;
export const INTERRUPT_CONTROL_REGISTER = 0x08 / 4;
export const DOORBELL_REGISTER = 0x0c / 4;
export const STATE_REGISTER = 0x10 / 4;
/** Offset of the privileged control byte in the vendor-specific capability. */
export const PRIVILEGED_CONTROL = 0x03;

const BASE_CLASS = 0xff;
const HEADER_SIZE = 64;
const STATUS = 0x06;
const STATUS_CAPABILITIES = 0x10;
const CAPABILITY_POINTER = 0x34;
const CAPABILITY_VENDOR = 0x09;
const CAPABILITY_MSIX = 0x11;
/** As many as fit into the space; a chain that is longer than that goes in circles. */
const MAX_CAPABILITIES = 48;
/** BAR 2 with its type bits: memory, 64 bits wide. */
const BAR2 = 0x18;
const BAR_TYPE_MASK = 0x07;
const BAR_MEMORY_64 = 0x04;

/** What the configuration space of an ivshmem v2 device tells. Sizes in bytes. */
export interface PciConfig {
  /** Protocol type, 16 bits, from the class code. */
  readonly protocol: number;
  /** Where the vendor-specific capability begins. */
  readonly vendorCapability: number;
  readonly stateTableSize: number;
  readonly readWriteSize: number;
  readonly outputSectionSize: number;
  /** MSI-X vectors; 0 where the device has no MSI-X. */
  readonly vectors: number;
}

/** A PCI device that is not, or not properly, an ivshmem v2 device. */
export class PciConfigError extends Error {
  override readonly name = 'PciConfigError';
}

/** Whether the configuration space begins as that of an ivshmem v2 device does. */
export function isIvshmem2(config: Uint8Array): boolean {
  if (config.length < HEADER_SIZE) return false;
  const registers = viewOf(config);
  return (
    registers.getUint16(0, true) === VENDOR_ID &&
    registers.getUint16(2, true) === DEVICE_ID &&
    config[0x0b] === BASE_CLASS
  );
}

function viewOf({ buffer, byteOffset, length }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, length);
}

/** The protocol type in the class code of a configuration space. Source: specification, "Protocols". */
export function protocolOf(config: Uint8Array): number {
  return viewOf(config).getUint16(0x09, true);
}

/**
 * Reads the configuration space of an ivshmem v2 device, as many bytes of it as there are. Throws
 * {@link PciConfigError} where it is none, lacks a capability, or has no memory that can be mapped.
 * Source: specification, "Configuration Space Registers".
 */
export function parsePciConfig(config: Uint8Array): PciConfig {
  if (!isIvshmem2(config)) throw new PciConfigError('this is no ivshmem v2 device (110a:4106, class ff)');
  const registers = viewOf(config);
  const capabilities = findCapabilities(config, registers);
  const vendor = capabilities.get(CAPABILITY_VENDOR);
  if (vendor === undefined) throw new PciConfigError('the device has no vendor-specific capability');
  if (vendor + 0x18 > config.length || config[vendor + 2]! < 0x18) {
    throw new PciConfigError('the vendor-specific capability is too short');
  }
  if ((registers.getUint32(BAR2, true) & BAR_TYPE_MASK) !== BAR_MEMORY_64) {
    throw new PciConfigError('the device has no BAR 2: memory at a fixed address is not supported');
  }
  const msix = capabilities.get(CAPABILITY_MSIX);
  return {
    protocol: protocolOf(config),
    vendorCapability: vendor,
    stateTableSize: registers.getUint32(vendor + 0x04, true),
    readWriteSize: size(registers, vendor + 0x08),
    outputSectionSize: size(registers, vendor + 0x10),
    vectors:
      msix === undefined || msix + 4 > config.length ? 0 : (registers.getUint16(msix + 2, true) & 0x7ff) + 1,
  };
}

/** Where the first capability of each kind begins. */
function findCapabilities(config: Uint8Array, registers: DataView): Map<number, number> {
  const found = new Map<number, number>();
  if ((registers.getUint16(STATUS, true) & STATUS_CAPABILITIES) === 0) return found;
  let at = config[CAPABILITY_POINTER]! & ~3;
  for (let i = 0; i < MAX_CAPABILITIES && at >= HEADER_SIZE && at + 2 <= config.length; i++) {
    const id = config[at]!;
    if (!found.has(id)) found.set(id, at);
    at = config[at + 1]! & ~3;
  }
  return found;
}

function size(registers: DataView, offset: number): number {
  const value = registers.getBigUint64(offset, true);
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  throw new PciConfigError(`a section of ${value} bytes is larger than any memory`);
}

/**
 * Where the sections lie in BAR 2, which has `barSize` bytes. Throws {@link LayoutError} where a size is no multiple
 * of `pageSize`, the state table does not hold the peers, or the sections do not fit.
 * Source: specification, "Shared Memory Region Layout".
 */
export function pciMemoryLayout(
  config: PciConfig,
  maxPeers: number,
  barSize: number,
  pageSize: number,
): MemoryLayout {
  const { stateTableSize, readWriteSize, outputSectionSize } = config;
  if (maxPeers < 2 || maxPeers > MAX_PEERS || maxPeers * 4 > stateTableSize) {
    throw new LayoutError(`${maxPeers} peers: a state table of ${stateTableSize} bytes can't be theirs`);
  }
  for (const [name, bytes] of Object.entries({ stateTableSize, readWriteSize, outputSectionSize })) {
    if (bytes % pageSize !== 0) {
      throw new LayoutError(`${name} of ${bytes} bytes: no multiple of ${pageSize}, the page size`);
    }
  }
  const outputOffset = stateTableSize + readWriteSize;
  const used = outputOffset + maxPeers * outputSectionSize;
  if (used > barSize) throw new LayoutError(`sections of ${used} bytes do not fit into ${barSize} of BAR 2`);
  return {
    size: used,
    readWriteOffset: stateTableSize,
    readWriteSize,
    outputOffset,
    outputSectionSize,
    maxPeers,
  };
}
