export {
  bindPciDriver,
  iommuGroup,
  listPciDevices,
  openPciResources,
  type PciDevice,
  pciDevicePath,
  readPciConfig,
} from './pci.ts';
export { openVfioDevice, type VfioDevice } from './vfio.ts';
