import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { basename } from 'node:path';
import { SystemCallError } from '../errors.ts';
import { type Mapping, mapShared } from '../memory/memory.ts';
import { tryLockFile } from '../process/file-lock.ts';

const DEVICES = '/sys/bus/pci/devices';
const DRIVERS_PROBE = '/sys/bus/pci/drivers_probe';

/** A PCI device for a driver in user space, independent of the kernel interface that gives access to it. */
export interface PciDevice {
  /** Domain, bus, device and function, for example `0000:00:05.0`. */
  readonly address: string;
  /** Bytes of the configuration space. Throws Error. */
  readConfig(offset: number, length: number): Uint8Array;
  /** Writes `bytes` to the configuration space, in one access if there are 1, 2 or 4. Throws Error. */
  writeConfig(offset: number, bytes: Uint8Array): void;
  /**
   * Maps `length` bytes of a memory BAR from `offset`, both multiples of the page size. Every access to the mapping
   * reaches the device, so registers must be accessed only as aligned elements of a Uint32Array: a DataView accesses
   * single bytes, and a write with Atomics also reads. Throws {@link SystemCallError}.
   */
  mapBar(bar: number, offset: number, length: number, write: boolean): Mapping;
  /** Releases the device. All mappings must have been closed. Calling it again has no effect. */
  close(): void;
}

/** The addresses of all PCI devices of this machine. Empty if it has no PCI bus. */
export function listPciDevices(): string[] {
  try {
    return readdirSync(DEVICES).sort();
  } catch {
    return [];
  }
}

/** The path of a PCI device's file in sysfs. */
export function pciDevicePath(address: string, file: string): string {
  return `${DEVICES}/${address}/${file}`;
}

/** The configuration space, 64 to 4096 bytes: all of it for a process with CAP_SYS_ADMIN. Throws Error. */
export function readPciConfig(address: string): Uint8Array {
  return readFileSync(pciDevicePath(address, 'config'));
}

/** The number of the device's IOMMU group; null if the machine has no IOMMU for it. */
export function iommuGroup(address: string): string | null {
  return linkName(address, 'iommu_group');
}

function linkName(address: string, link: string): string | null {
  try {
    return basename(readlinkSync(pciDevicePath(address, link)));
  } catch {
    return null;
  }
}

/**
 * Binds the device to `driver`, which must be loaded, and unbinds it from any other. Returns a function that restores the
 * previous binding. Throws Error.
 */
export function bindPciDriver(address: string, driver: string): () => void {
  const before = linkName(address, 'driver');
  if (before === driver) return () => {};
  const set = (file: string, value: string) => writeFileSync(pciDevicePath(address, file), value);
  const probe = () => writeFileSync(DRIVERS_PROBE, address);
  const undo = () => {
    if (linkName(address, 'driver') === driver) set('driver/unbind', address);
    set('driver_override', '\n');
    if (before !== null) probe();
  };
  set('driver_override', driver);
  try {
    if (before !== null) set('driver/unbind', address);
    probe();
    if (linkName(address, 'driver') !== driver) {
      throw new Error(
        `PCI device ${address}: driver ${driver} did not take it: load it with "modprobe ${driver}"`,
      );
    }
  } catch (error) {
    undo();
    throw error;
  }
  return undo;
}

/**
 * Opens a PCI device through its files in sysfs: memory and registers, but no interrupts. Only one process can open it this way
 * at a time. Throws Error if a driver is bound to the device, or another process has it open.
 */
export function openPciResources(address: string): PciDevice {
  const driver = linkName(address, 'driver');
  if (driver !== null) {
    throw new Error(
      `PCI device ${address}: driver ${driver} has it: "echo ${address} > ${pciDevicePath(address, 'driver/unbind')}" takes it away`,
    );
  }
  const open = new Map<string, number>();
  const file = (name: string): number => {
    const path = pciDevicePath(address, name);
    const fd = open.get(name) ?? openSync(path, 'r+');
    open.set(name, fd);
    return fd;
  };
  let isOpen = true;
  const close = () => {
    if (!isOpen) return;
    isOpen = false;
    for (const fd of open.values()) closeSync(fd);
  };
  try {
    if (!tryLockFile(file('config'))) throw new Error(`PCI device ${address}: another process uses it`);
    writeFileSync(pciDevicePath(address, 'enable'), '1');
  } catch (error) {
    close();
    throw error;
  }
  return {
    address,
    readConfig: (offset, length) => readAt(file('config'), offset, length, address),
    writeConfig: (offset, bytes) => void writeSync(file('config'), bytes, 0, bytes.length, offset),
    mapBar(bar, offset, length, write) {
      const subject = pciDevicePath(address, `resource${bar}`);
      try {
        return mapShared(file(`resource${bar}`), length, { offset, write, subject });
      } catch (error) {
        if (!(error instanceof SystemCallError) || error.code !== 'EINVAL') throw error;
        throw new SystemCallError(error.syscall, subject, error.errno, 'a driver of the kernel uses it');
      }
    },
    close() {
      if (isOpen) writeFileSync(pciDevicePath(address, 'enable'), '0');
      close();
    },
  };
}

/** Reads exactly `length` bytes at a position of a file. */
export function readAt(fd: number, position: number, length: number, subject: string): Uint8Array {
  const bytes = Buffer.alloc(length);
  const got = readSync(fd, bytes, 0, length, position);
  if (got !== length) throw new Error(`${subject}: ${got} bytes instead of ${length} at offset ${position}`);
  return bytes;
}
