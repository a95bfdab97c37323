import { LayoutError, MAX_PEERS, type MemoryLayout } from './memory-layout.ts';
import * as pci from './pci-registers.ts';

/** As many as fit into the space; a longer chain is a circle. */
const MAX_CAPABILITIES = 48;

/** The contents of an ivshmem v2 device's configuration space. Sizes in bytes. */
export interface PciConfig {
  /** Protocol type, 16 bits, from the class code. */
  readonly protocol: number;
  /** Offset of the vendor-specific capability. */
  readonly vendorCapability: number;
  readonly stateTableSize: number;
  readonly readWriteSize: number;
  readonly outputSectionSize: number;
  /** MSI-X vectors; 0 if the device has no MSI-X. */
  readonly vectors: number;
}

/** A PCI device that is not, or not properly, an ivshmem v2 device. */
export class PciConfigError extends Error {
  override readonly name = 'PciConfigError';
}

/** Whether the configuration space begins as that of an ivshmem v2 device does. */
export function isIvshmem2(config: Uint8Array): boolean {
  if (config.length < pci.HEADER_SIZE) return false;
  const registers = viewOf(config);
  return (
    registers.getUint16(0, true) === pci.VENDOR_ID &&
    registers.getUint16(2, true) === pci.DEVICE_ID &&
    config[pci.CLASS_CODE + 2] === pci.BASE_CLASS
  );
}

function viewOf({ buffer, byteOffset, length }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, length);
}

/** The protocol type in the class code of a configuration space. Source: specification, "Protocols". */
export function protocolOf(config: Uint8Array): number {
  return viewOf(config).getUint16(pci.CLASS_CODE, true);
}

/**
 * Reads the configuration space of an ivshmem v2 device, as many bytes of it as there are. Throws
 * {@link PciConfigError} if it is not such a device, lacks a capability, or has no memory that can be mapped.
 * Source: specification, "Configuration Space Registers".
 */
export function parsePciConfig(config: Uint8Array): PciConfig {
  if (!isIvshmem2(config)) throw new PciConfigError('this is no ivshmem v2 device (110a:4106, class ff)');
  const registers = viewOf(config);
  const capabilities = findCapabilities(config, registers);
  const vendor = capabilities.get(pci.VENDOR_CAPABILITY_ID);
  if (vendor === undefined) throw new PciConfigError('the device has no vendor-specific capability');
  if (
    vendor + pci.VENDOR_CAPABILITY_SIZE > config.length ||
    config[vendor + 2]! < pci.VENDOR_CAPABILITY_SIZE
  ) {
    throw new PciConfigError('the vendor-specific capability is too short');
  }
  if ((registers.getUint32(pci.BAR2, true) & pci.BAR_TYPE_MASK) !== pci.BAR_MEMORY_64) {
    throw new PciConfigError('the device has no BAR 2: memory at a fixed address is not supported');
  }
  const msix = capabilities.get(pci.MSIX_CAPABILITY_ID);
  return {
    protocol: protocolOf(config),
    vendorCapability: vendor,
    stateTableSize: registers.getUint32(vendor + pci.STATE_TABLE_SIZE_REGISTER, true),
    readWriteSize: size(registers, vendor + pci.READ_WRITE_SIZE_REGISTER),
    outputSectionSize: size(registers, vendor + pci.OUTPUT_SIZE_REGISTER),
    vectors:
      msix === undefined || msix + 4 > config.length
        ? 0
        : (registers.getUint16(msix + pci.MSIX_CONTROL, true) & pci.MSIX_TABLE_SIZE_MASK) + 1,
  };
}

/** Offset of the first capability of each kind. */
function findCapabilities(config: Uint8Array, registers: DataView): Map<number, number> {
  const found = new Map<number, number>();
  if ((registers.getUint16(pci.STATUS, true) & pci.STATUS_CAPABILITIES) === 0) return found;
  let at = config[pci.CAPABILITIES_POINTER]! & ~3;
  for (let i = 0; i < MAX_CAPABILITIES && at >= pci.HEADER_SIZE && at + 2 <= config.length; i++) {
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
 * The layout of the sections in BAR 2, which has `barSize` bytes. Throws {@link LayoutError} if a size is not a multiple
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
    throw new LayoutError(`${maxPeers} peers do not match a state table of ${stateTableSize} bytes`);
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
