import { type MemoryLayout, STATE_TABLE_SIZE } from '@ivshmem/transport/protocol';

/** Size of the configuration space of a conventional PCI function, in bytes. */
export const CONFIGURATION_SIZE = 256;
/** Vendor and Device ID. Source: specification, "Header Registers". */
export const VENDOR_ID = 0x110a;
export const DEVICE_ID = 0x4106;

/** Offsets of header registers. Source: PCI Local Bus Specification 3.0, 6.1. */
export const COMMAND = 0x04;
const STATUS = 0x06;
const CLASS_CODE = 0x09;
const BAR0 = 0x10;
const BAR1 = 0x14;
const BAR2 = 0x18;
const SUBSYSTEM_VENDOR_ID = 0x2c;
const SUBSYSTEM_ID = 0x2e;
const CAPABILITIES_POINTER = 0x34;

/** Command register. Source: PCI Local Bus Specification 3.0, 6.2.2. */
export const COMMAND_MEMORY = 1 << 1;
export const COMMAND_BUS_MASTER = 1 << 2;
export const COMMAND_INTX_DISABLE = 1 << 10;
/** Status register: there are capabilities. Nothing else in it is ever set. */
const STATUS_CAPABILITIES = 0x0010;
/** Base class: device that fits in no other. */
const BASE_CLASS = 0xff;
/** Type bits of a memory BAR: 64 bits wide, prefetchable. */
const BAR_64BIT_PREFETCHABLE = 0xc;

/** The vendor specific capability. Source: specification, "Vendor Specific Capability (ID 09h)". */
export const VENDOR_CAPABILITY = 0x40;
const VENDOR_CAPABILITY_SIZE = 0x18;
export const PRIVILEGED_CONTROL = VENDOR_CAPABILITY + 0x03;
export const ONE_SHOT_MODE = 1 << 0;

/** The MSI-X capability. Source: PCI Local Bus Specification 3.0, 6.8.2. */
export const MSIX_CAPABILITY = VENDOR_CAPABILITY + VENDOR_CAPABILITY_SIZE;
export const MSIX_CONTROL = MSIX_CAPABILITY + 0x02;
/** In the upper byte of the control register. */
export const MSIX_ENABLE = 1 << 15;
const MSIX_FUNCTION_MASK = 1 << 14;
const MSIX_ENTRY_SIZE = 16;
const MSIX_BAR = 1;
/** The most vectors of a function. */
export const MAX_MSIX_VECTORS = 2048;

/** Size of BAR 0, the register region, in bytes: a page. */
export const REGISTER_REGION_SIZE = 0x1000;

/** What the configuration space tells of a device. */
export interface DeviceIdentity {
  /** 0 … maxPeers - 1. */
  readonly id: number;
  readonly maxPeers: number;
  /** Protocol type, 16 bits. */
  readonly protocol: number;
  /** MSI-X vectors, 1 … {@link MAX_MSIX_VECTORS}. */
  readonly vectors: number;
  readonly layout: MemoryLayout;
}

/** The smallest power of two that is not below `size`. */
export function nextPowerOfTwo(size: number): number {
  let power = 1;
  while (power < size) power *= 2;
  return power;
}

/** Size of BAR 1 in bytes: the MSI-X table in its first half, the pending bits in the second. */
export function msixRegionSize(vectors: number): number {
  return Math.max(0x1000, 2 * nextPowerOfTwo(vectors * MSIX_ENTRY_SIZE));
}

/** Size of BAR 2 in bytes: that of the shared memory, rounded up to a power of two as PCI has it. */
export function memoryRegionSize(layout: MemoryLayout): number {
  return Math.max(0x1000, nextPowerOfTwo(layout.size));
}

/**
 * The configuration space: bytes, and for each which of its bits can be written. MSI-X only, so there is no interrupt
 * pin; registers that the specification does not name return 0 and ignore writes.
 * Source: specification, "Configuration Space Registers".
 */
export class ConfigurationSpace {
  readonly #initial = new Uint8Array(CONFIGURATION_SIZE);
  readonly #writable = new Uint8Array(CONFIGURATION_SIZE);
  readonly #current = new Uint8Array(CONFIGURATION_SIZE);

  /** Throws RangeError where vectors are too few or too many for MSI-X. */
  constructor(identity: DeviceIdentity) {
    const { protocol, vectors, layout } = identity;
    if (!Number.isInteger(vectors) || vectors < 1 || vectors > MAX_MSIX_VECTORS) {
      throw new RangeError(`${vectors} vectors: MSI-X has 1 to ${MAX_MSIX_VECTORS}`);
    }
    const initial = new DataView(this.#initial.buffer);
    const writable = new DataView(this.#writable.buffer);
    initial.setUint16(0x00, VENDOR_ID, true);
    initial.setUint16(0x02, DEVICE_ID, true);
    writable.setUint16(COMMAND, COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE, true);
    initial.setUint16(STATUS, STATUS_CAPABILITIES, true);
    initial.setUint16(CLASS_CODE, protocol, true);
    initial.setUint8(CLASS_CODE + 2, BASE_CLASS);
    // Address bits below the size of a BAR read 0, which is how its size is found out.
    const msixSize = msixRegionSize(vectors);
    writable.setUint32(BAR0, -REGISTER_REGION_SIZE, true);
    writable.setUint32(BAR1, -msixSize, true);
    initial.setUint32(BAR2, BAR_64BIT_PREFETCHABLE, true);
    writable.setBigUint64(BAR2, BigInt.asUintN(64, -BigInt(memoryRegionSize(layout))), true);
    initial.setUint16(SUBSYSTEM_VENDOR_ID, VENDOR_ID, true);
    initial.setUint16(SUBSYSTEM_ID, DEVICE_ID, true);
    initial.setUint8(CAPABILITIES_POINTER, VENDOR_CAPABILITY);

    initial.setUint8(VENDOR_CAPABILITY, 0x09);
    initial.setUint8(VENDOR_CAPABILITY + 0x01, MSIX_CAPABILITY);
    initial.setUint8(VENDOR_CAPABILITY + 0x02, VENDOR_CAPABILITY_SIZE);
    writable.setUint8(PRIVILEGED_CONTROL, ONE_SHOT_MODE);
    initial.setUint32(VENDOR_CAPABILITY + 0x04, STATE_TABLE_SIZE, true);
    initial.setBigUint64(VENDOR_CAPABILITY + 0x08, BigInt(layout.readWriteSize), true);
    initial.setBigUint64(VENDOR_CAPABILITY + 0x10, BigInt(layout.outputSectionSize), true);

    initial.setUint8(MSIX_CAPABILITY, 0x11);
    initial.setUint16(MSIX_CONTROL, vectors - 1, true);
    writable.setUint16(MSIX_CONTROL, MSIX_ENABLE | MSIX_FUNCTION_MASK, true);
    initial.setUint32(MSIX_CAPABILITY + 0x04, MSIX_BAR, true);
    initial.setUint32(MSIX_CAPABILITY + 0x08, (msixSize / 2) | MSIX_BAR, true);
    this.reset();
  }

  /** The Command register. */
  get command(): number {
    return this.#current[COMMAND]! | (this.#current[COMMAND + 1]! << 8);
  }

  /** Whether the guest has enabled MSI-X. */
  get msixEnabled(): boolean {
    return (this.#current[MSIX_CONTROL + 1]! & (MSIX_ENABLE >> 8)) !== 0;
  }

  /** Privileged Control bit 0. */
  get oneShot(): boolean {
    return (this.#current[PRIVILEGED_CONTROL]! & ONE_SHOT_MODE) !== 0;
  }

  /** Copies bytes from `offset`; the caller keeps `offset + into.length` within {@link CONFIGURATION_SIZE}. */
  read(offset: number, into: Uint8Array): void {
    into.set(this.#current.subarray(offset, offset + into.length));
  }

  /** Writes what is writable in those bytes; any size and alignment, within {@link CONFIGURATION_SIZE}. */
  write(offset: number, bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) {
      const writable = this.#writable[offset + i]!;
      this.#current[offset + i] = (this.#current[offset + i]! & ~writable) | (bytes[i]! & writable);
    }
  }

  /** Takes all registers to what they are after reset. */
  reset(): void {
    this.#current.set(this.#initial);
  }
}
