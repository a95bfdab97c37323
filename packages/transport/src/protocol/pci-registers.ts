// Registers of an ivshmem v2 PCI device, for those who read them (a driver) and those who make them (a device model).
// Offsets and sizes are in bytes.

/** Vendor and Device ID. Source: specification, "Header Registers". */
export const VENDOR_ID = 0x110a;
export const DEVICE_ID = 0x4106;
/** Base class: a device that fits in no other. */
export const BASE_CLASS = 0xff;

/** Offsets in the configuration space. Source: PCI Local Bus Specification 3.0, 6.1. */
export const COMMAND = 0x04;
export const STATUS = 0x06;
/** Class code: the protocol type, 16 bits, then the base class. */
export const CLASS_CODE = 0x09;
export const BAR0 = 0x10;
export const BAR1 = 0x14;
export const BAR2 = 0x18;
export const SUBSYSTEM_VENDOR_ID = 0x2c;
export const SUBSYSTEM_ID = 0x2e;
export const CAPABILITIES_POINTER = 0x34;
/** Size of the header; capabilities lie behind it. */
export const HEADER_SIZE = 0x40;

/** Bits of the Command register. Source: PCI Local Bus Specification 3.0, 6.2.2. */
export const COMMAND_MEMORY = 1 << 1;
export const COMMAND_BUS_MASTER = 1 << 2;
export const COMMAND_INTX_DISABLE = 1 << 10;
/** Bit of the Status register: there are capabilities. */
export const STATUS_CAPABILITIES = 1 << 4;
/** Type bits of a BAR, and their value for memory that is 64 bits wide. */
export const BAR_TYPE_MASK = 0x7;
export const BAR_MEMORY_64 = 0x4;
export const BAR_PREFETCHABLE = 0x8;

/** The vendor-specific capability, offsets from its start. Source: specification, "Vendor Specific Capability (ID 09h)". */
export const VENDOR_CAPABILITY_ID = 0x09;
export const VENDOR_CAPABILITY_SIZE = 0x18;
export const PRIVILEGED_CONTROL = 0x03;
export const STATE_TABLE_SIZE_REGISTER = 0x04;
export const READ_WRITE_SIZE_REGISTER = 0x08;
export const OUTPUT_SIZE_REGISTER = 0x10;
/** Bit of Privileged Control. */
export const ONE_SHOT_MODE = 1 << 0;

/** The MSI-X capability, offsets from its start. Source: PCI Local Bus Specification 3.0, 6.8.2. */
export const MSIX_CAPABILITY_ID = 0x11;
export const MSIX_CONTROL = 0x02;
export const MSIX_TABLE = 0x04;
export const MSIX_PENDING_BITS = 0x08;
/** Parts of the MSI-X Message Control register: the number of vectors less one, and two bits. */
export const MSIX_TABLE_SIZE_MASK = 0x7ff;
export const MSIX_FUNCTION_MASK = 1 << 14;
export const MSIX_ENABLE = 1 << 15;

/** The BARs, by number. Source: specification, "Header Registers". */
export const REGISTER_BAR = 0;
export const MSIX_BAR = 1;
export const MEMORY_BAR = 2;

/** Size of BAR 0, the register region: one page. */
export const REGISTER_REGION_SIZE = 0x1000;
/** Offsets of the registers in that, each of 32 bits. Source: specification, "Register Region". */
export const Register = {
  ID: 0x00,
  MAXIMUM_PEERS: 0x04,
  INTERRUPT_CONTROL: 0x08,
  DOORBELL: 0x0c,
  STATE: 0x10,
} as const;
/** Bit of the Interrupt Control register. */
export const INTERRUPT_ENABLE = 1 << 0;
