import { type MemoryLayout, pci, STATE_TABLE_SIZE } from '@ivshmem/transport/protocol';

/** Size of the configuration space of a conventional PCI function, in bytes. */
export const CONFIGURATION_SIZE = 256;
/** Where this device has its capabilities. */
const VENDOR_CAPABILITY = pci.HEADER_SIZE;
const MSIX_CAPABILITY = VENDOR_CAPABILITY + pci.VENDOR_CAPABILITY_SIZE;
const PRIVILEGED_CONTROL = VENDOR_CAPABILITY + pci.PRIVILEGED_CONTROL;
const MSIX_CONTROL = MSIX_CAPABILITY + pci.MSIX_CONTROL;
const MSIX_ENTRY_SIZE = 16;
/** The most vectors of a function. */
export const MAX_MSIX_VECTORS = pci.MSIX_TABLE_SIZE_MASK + 1;

/** The properties of a device in its configuration space. */
export interface DeviceIdentity {
  /** 0 … maxPeers - 1. */
  readonly id: number;
  readonly maxPeers: number;
  /** Protocol type, 16 bits. */
  readonly protocol: number;
  /** MSI-X vectors, 1 … `MAX_MSIX_VECTORS`. */
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

/** Size of BAR 2 in bytes: that of the shared memory, rounded up to a power of two as PCI requires. */
export function memoryRegionSize(layout: MemoryLayout): number {
  return Math.max(0x1000, nextPowerOfTwo(layout.size));
}

/**
 * The configuration space: its bytes, and which of their bits can be written. MSI-X only, so there is no interrupt
 * pin; registers that the specification does not name return 0 and ignore writes.
 * Source: specification, "Configuration Space Registers".
 */
export class ConfigurationSpace {
  readonly #initial = new Uint8Array(CONFIGURATION_SIZE);
  readonly #writable = new Uint8Array(CONFIGURATION_SIZE);
  readonly #current: Uint8Array;

  /**
   * After reset; or, with the `CONFIGURATION_SIZE` bytes of an earlier object, as that was. Throws RangeError if there are too
   * few or too many vectors for MSI-X.
   */
  constructor(identity: DeviceIdentity, current?: Uint8Array) {
    this.#current = current ?? new Uint8Array(CONFIGURATION_SIZE);
    const { protocol, vectors, layout } = identity;
    if (!Number.isInteger(vectors) || vectors < 1 || vectors > MAX_MSIX_VECTORS) {
      throw new RangeError(`${vectors} vectors: MSI-X has 1 to ${MAX_MSIX_VECTORS}`);
    }
    const initial = new DataView(this.#initial.buffer);
    const writable = new DataView(this.#writable.buffer);
    initial.setUint16(0x00, pci.VENDOR_ID, true);
    initial.setUint16(0x02, pci.DEVICE_ID, true);
    writable.setUint16(
      pci.COMMAND,
      pci.COMMAND_MEMORY | pci.COMMAND_BUS_MASTER | pci.COMMAND_INTX_DISABLE,
      true,
    );
    initial.setUint16(pci.STATUS, pci.STATUS_CAPABILITIES, true);
    initial.setUint16(pci.CLASS_CODE, protocol, true);
    initial.setUint8(pci.CLASS_CODE + 2, pci.BASE_CLASS);
    // Address bits below the size of a BAR read 0: software finds out the size that way.
    const msixSize = msixRegionSize(vectors);
    writable.setUint32(pci.BAR0, -pci.REGISTER_REGION_SIZE, true);
    writable.setUint32(pci.BAR1, -msixSize, true);
    initial.setUint32(pci.BAR2, pci.BAR_MEMORY_64 | pci.BAR_PREFETCHABLE, true);
    writable.setBigUint64(pci.BAR2, BigInt.asUintN(64, -BigInt(memoryRegionSize(layout))), true);
    initial.setUint16(pci.SUBSYSTEM_VENDOR_ID, pci.VENDOR_ID, true);
    initial.setUint16(pci.SUBSYSTEM_ID, pci.DEVICE_ID, true);
    initial.setUint8(pci.CAPABILITIES_POINTER, VENDOR_CAPABILITY);

    initial.setUint8(VENDOR_CAPABILITY, pci.VENDOR_CAPABILITY_ID);
    initial.setUint8(VENDOR_CAPABILITY + 0x01, MSIX_CAPABILITY);
    initial.setUint8(VENDOR_CAPABILITY + 0x02, pci.VENDOR_CAPABILITY_SIZE);
    writable.setUint8(PRIVILEGED_CONTROL, pci.ONE_SHOT_MODE);
    initial.setUint32(VENDOR_CAPABILITY + pci.STATE_TABLE_SIZE_REGISTER, STATE_TABLE_SIZE, true);
    initial.setBigUint64(
      VENDOR_CAPABILITY + pci.READ_WRITE_SIZE_REGISTER,
      BigInt(layout.readWriteSize),
      true,
    );
    initial.setBigUint64(
      VENDOR_CAPABILITY + pci.OUTPUT_SIZE_REGISTER,
      BigInt(layout.outputSectionSize),
      true,
    );

    initial.setUint8(MSIX_CAPABILITY, pci.MSIX_CAPABILITY_ID);
    initial.setUint16(MSIX_CONTROL, vectors - 1, true);
    writable.setUint16(MSIX_CONTROL, pci.MSIX_ENABLE | pci.MSIX_FUNCTION_MASK, true);
    initial.setUint32(MSIX_CAPABILITY + pci.MSIX_TABLE, pci.MSIX_BAR, true);
    initial.setUint32(MSIX_CAPABILITY + pci.MSIX_PENDING_BITS, (msixSize / 2) | pci.MSIX_BAR, true);
    if (current === undefined) this.reset();
  }

  /** Whether the bits that cannot be written have the values of this device. */
  get isValid(): boolean {
    return this.#current.every((byte, i) => ((byte ^ this.#initial[i]!) & ~this.#writable[i]!) === 0);
  }

  /** The Command register. */
  get command(): number {
    return this.#current[pci.COMMAND]! | (this.#current[pci.COMMAND + 1]! << 8);
  }

  /** Whether the guest has enabled MSI-X. */
  get msixEnabled(): boolean {
    return (this.#current[MSIX_CONTROL + 1]! & (pci.MSIX_ENABLE >> 8)) !== 0;
  }

  /** Privileged Control bit 0. */
  get oneShot(): boolean {
    return (this.#current[PRIVILEGED_CONTROL]! & pci.ONE_SHOT_MODE) !== 0;
  }

  /** Copies bytes from `offset`; the caller keeps `offset + into.length` within `CONFIGURATION_SIZE`. */
  read(offset: number, into: Uint8Array): void {
    into.set(this.#current.subarray(offset, offset + into.length));
  }

  /** Writes the writable bits of those bytes; any size and alignment, within `CONFIGURATION_SIZE`. */
  write(offset: number, bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) {
      const writable = this.#writable[offset + i]!;
      this.#current[offset + i] = (this.#current[offset + i]! & ~writable) | (bytes[i]! & writable);
    }
  }

  /** Sets all registers to their values after reset. */
  reset(): void {
    this.#current.set(this.#initial);
  }
}
