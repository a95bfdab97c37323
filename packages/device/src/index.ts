export type { DeviceStats } from './counters.ts';
export { createDevice, type Device } from './device.ts';
export type { DeviceInfo, DeviceState } from './device-messages.ts';
export { checkDeviceOptions, type DeviceOptions, qemuOption } from './device-options.ts';
export {
  ConfigurationSpace,
  DEVICE_ID,
  type DeviceIdentity,
  memoryRegionSize,
  msixRegionSize,
  REGISTER_REGION_SIZE,
  VENDOR_ID,
} from './ivshmem/configuration-space.ts';
export { type DeviceAction, DeviceModel, INTERRUPT_ENABLE, Register } from './ivshmem/device-model.ts';
