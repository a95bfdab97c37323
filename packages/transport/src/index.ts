// Symbol.dispose in the types, for users whose tsconfig.json does not list it in "lib".
/// <reference lib="esnext.disposable" preserve="true" />
export * from './capabilities.ts';
export { type CounterSet, counterSet, countersOf } from './counter-set.ts';
export * from './frame-header.ts';
export * from './handshake.ts';
export * from './handshake-driver.ts';
export { HostPort, type PortIdentity } from './host-port.ts';
export { Loopback, type LoopbackEnd, LoopbackPort } from './loopback-port.ts';
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
export { checkPciDevice, openPciPort, type PciInterrupts, type PciSource } from './pci-port.ts';
export type * from './port.ts';
export { PortSeeker, type PortSeekerOptions } from './port-seeker.ts';
export { openPort, type PortSource } from './port-source.ts';
export * from './ring-layout.ts';
export { RxQueue } from './rx-queue.ts';
export { type ReceivedMessage, ServerConnection } from './server-connection.ts';
export * from './server-messages.ts';
export { type HostPortOpened, type OpeningPort, openServerPort, type PortOpened } from './server-port.ts';
export { ServerTrust } from './server-trust.ts';
export { SharedMemory } from './shared-memory.ts';
export { TxQueue } from './tx-queue.ts';
export { Violation, violationText } from './violation.ts';
