// Symbol.dispose in the types, for users whose tsconfig.json does not list it in "lib".
/// <reference lib="esnext.disposable" preserve="true" />
export * from './capabilities.ts';
export * from './frame-header.ts';
export * from './handshake.ts';
export * from './handshake-driver.ts';
export * from './memory-layout.ts';
export * from './mtu.ts';
export {
  isIvshmem2,
  type PciConfig,
  PciConfigError,
  parsePciConfig,
  pciMemoryLayout,
  protocolOf,
} from './pci-config.ts';
export * as pci from './pci-registers.ts';
export * from './ring-layout.ts';
export { type ObservedFrame, type ObserverClock, RingObserver } from './ring-observer.ts';
export { RxQueue } from './rx-queue.ts';
export * from './server-messages.ts';
export { TxQueue } from './tx-queue.ts';
export { Violation, violationText } from './violation.ts';
