// Symbol.asyncDispose in the types, for users whose tsconfig.json does not list it in "lib".
/// <reference lib="esnext.disposable" preserve="true" />
export type { DeviceStats } from './counters.ts';
export { createDevice, type Device } from './device.ts';
export type { DeviceInfo, DeviceState } from './device-messages.ts';
export { checkDeviceOptions, type DeviceOptions, qemuOption } from './device-options.ts';
export {
  ConfigurationSpace,
  type DeviceIdentity,
  memoryRegionSize,
  msixRegionSize,
} from './ivshmem/configuration-space.ts';
export { type DeviceAction, DeviceModel } from './ivshmem/device-model.ts';
