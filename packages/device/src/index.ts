export {
  ConfigurationSpace,
  DEVICE_ID,
  type DeviceIdentity,
  memoryRegionSize,
  msixRegionSize,
  REGISTER_REGION_SIZE,
  VENDOR_ID,
} from './configuration-space.ts';
export type { DeviceStats } from './counters.ts';
export { createDevice, type Device } from './device.ts';
export type { DeviceInfo, DeviceState } from './device-messages.ts';
export { type DeviceAction, DeviceModel, INTERRUPT_ENABLE, Register } from './device-model.ts';
export { checkDeviceOptions, type DeviceOptions, qemuOption } from './device-options.ts';
