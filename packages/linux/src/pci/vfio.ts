import { writeSync } from 'node:fs';
import { O_CLOEXEC, O_RDWR } from '../constants.ts';
import { SystemCallError } from '../errors.ts';
import { closeFd } from '../fd.ts';
import * as libc from '../libc.ts';
import { mapPrivate, mapShared } from '../memory/memory.ts';
import { bindPciDriver, iommuGroup, type PciDevice, readAt } from './pci.ts';

// linux/vfio.h
const VFIO_SET_IOMMU = 0x3b66;
const VFIO_GROUP_GET_STATUS = 0x3b67;
const VFIO_GROUP_SET_CONTAINER = 0x3b68;
const VFIO_GROUP_GET_DEVICE_FD = 0x3b6a;
const VFIO_DEVICE_GET_REGION_INFO = 0x3b6c;
const VFIO_DEVICE_SET_IRQS = 0x3b6e;
const VFIO_TYPE1V2_IOMMU = 3;
const GROUP_VIABLE = 1;
const CONFIG_REGION = 7;
const MSIX = 2;
const IRQ_NONE_TRIGGER = 1 | 32;
const IRQ_EVENTFD_TRIGGER = 4 | 32;

const CONTAINER = '/dev/vfio/vfio';
const MODULES = 'load the drivers with "modprobe vfio_iommu_type1" and "modprobe vfio-pci"';

const remedies: Record<string, Record<string, string>> = {
  open: {
    ENOENT: MODULES,
    EBUSY: 'another process has the device open',
    EACCES: 'needs permission: run as root',
    EPERM: 'needs permission: run as root',
  },
  VFIO_SET_IOMMU: {
    ENODEV: MODULES,
    EPERM:
      'the machine cannot confine interrupts: "modprobe vfio_iommu_type1 allow_unsafe_interrupts=1" does without',
  },
};

/** A PCI device bound to vfio-pci. */
export interface VfioDevice extends PciDevice {
  /**
   * Makes MSI-X vector n signal `eventFds[n]`, owned by the caller. Throws {@link SystemCallError}. The device
   * interrupts only while it is bus master (bit 2 of the command register).
   */
  enableMsix(eventFds: readonly number[]): void;
  /** Disables all vectors. */
  disableMsix(): void;
}

/**
 * Opens a PCI device through vfio-pci, which is bound to it, instead of any other driver, until it is closed. Requires an IOMMU.
 * Throws Error with one line that names what is missing.
 */
export function openVfioDevice(address: string): VfioDevice {
  const group = iommuGroup(address);
  if (group === null) {
    throw new Error(
      `PCI device ${address}: no IOMMU serves it, which vfio-pci needs: give the machine one (QEMU: -device intel-iommu), or use polling`,
    );
  }
  // One page for the structures of all calls.
  const scratch = mapPrivate(4096);
  const struct = new DataView(scratch.buffer);
  const cleanups: (() => void)[] = [() => scratch.close()];
  const close = () => {
    for (const cleanup of cleanups.splice(0).reverse()) cleanup();
  };
  const call = (fd: number, name: string, request: number, argument: number): number => {
    const result = libc.ioctlInt(fd, request, 'long', argument);
    if (result !== -1) return result;
    throw failure(name, `PCI device ${address}`);
  };
  const open = (path: string): number => {
    const fd = libc.open(path, O_RDWR | O_CLOEXEC, 'uint', 0);
    if (fd === -1) throw failure('open', path);
    cleanups.push(() => closeFd(fd));
    return fd;
  };
  try {
    const container = open(CONTAINER);
    cleanups.push(bindPciDriver(address, 'vfio-pci'));
    const groupFd = open(`/dev/vfio/${group}`);
    // struct vfio_group_status {u32 argsz, u32 flags}
    struct.setUint32(0, 8, true);
    call(groupFd, 'VFIO_GROUP_GET_STATUS', VFIO_GROUP_GET_STATUS, scratch.address);
    if ((struct.getUint32(4, true) & GROUP_VIABLE) === 0) {
      throw new Error(
        `IOMMU group ${group}: other devices of the group of ${address} have drivers: unbind them`,
      );
    }
    struct.setInt32(0, container, true);
    call(groupFd, 'VFIO_GROUP_SET_CONTAINER', VFIO_GROUP_SET_CONTAINER, scratch.address);
    call(container, 'VFIO_SET_IOMMU', VFIO_SET_IOMMU, VFIO_TYPE1V2_IOMMU);
    new Uint8Array(scratch.buffer).set(Buffer.from(`${address}\0`));
    const device = call(groupFd, 'VFIO_GROUP_GET_DEVICE_FD', VFIO_GROUP_GET_DEVICE_FD, scratch.address);
    cleanups.push(() => closeFd(device));

    /** Offset of a region in the device's file. struct {u32 argsz, flags, index, cap_offset; u64 size, offset} */
    const regionOffset = (index: number): number => {
      new Uint8Array(scratch.buffer, 0, 32).fill(0);
      struct.setUint32(0, 32, true);
      struct.setUint32(8, index, true);
      call(device, 'VFIO_DEVICE_GET_REGION_INFO', VFIO_DEVICE_GET_REGION_INFO, scratch.address);
      return Number(struct.getBigUint64(24, true));
    };
    /** struct vfio_irq_set {u32 argsz, flags, index, start, count; s32 fds[count]} */
    const setIrqs = (flags: number, fds: readonly number[]) => {
      for (const [i, value] of [20 + 4 * fds.length, flags, MSIX, 0, fds.length, ...fds].entries()) {
        struct.setInt32(4 * i, value, true);
      }
      call(device, 'VFIO_DEVICE_SET_IRQS', VFIO_DEVICE_SET_IRQS, scratch.address);
    };
    const config = regionOffset(CONFIG_REGION);
    return {
      address,
      readConfig: (offset, length) => readAt(device, config + offset, length, address),
      writeConfig: (offset, bytes) => void writeSync(device, bytes, 0, bytes.length, config + offset),
      mapBar: (bar, offset, length, write) =>
        mapShared(device, length, {
          offset: regionOffset(bar) + offset,
          write,
          subject: `BAR ${bar} of ${address}`,
        }),
      enableMsix: (eventFds) => setIrqs(IRQ_EVENTFD_TRIGGER, eventFds),
      disableMsix: () => setIrqs(IRQ_NONE_TRIGGER, []),
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

function failure(call: string, subject: string): SystemCallError {
  const errno = libc.errno();
  const { code } = new SystemCallError(call, subject, errno);
  return new SystemCallError(call, subject, errno, remedies[call]?.[code]);
}
