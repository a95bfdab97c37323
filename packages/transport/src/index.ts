export { type CounterSet, counterSet, countersOf } from './counter-set.ts';
export { Peer, type PeerUser } from './peer/peer.ts';
export { HostPort, type PortIdentity } from './port/host-port.ts';
export { Loopback, type LoopbackEnd, LoopbackPort } from './port/loopback-port.ts';
export {
  type OpeningPort,
  openServerPort,
  type PortOpened,
  type ServerPortOpened,
} from './port/open-server-port.ts';
export { checkPciDevice, openPciPort, type PciInterrupts, type PciSource } from './port/pci-port.ts';
export type * from './port/port.ts';
export { PortSeeker, type PortSeekerOptions } from './port/port-seeker.ts';
export { openPort, type PortSource } from './port/port-source.ts';
export { restoreServerPort } from './port/restore-server-port.ts';
export { type ReceivedMessage, ServerConnection } from './port/server-connection.ts';
export { ServerPort } from './port/server-port.ts';
export { ServerTrust } from './port/server-trust.ts';
export { SharedMemory } from './port/shared-memory.ts';
export type { Section } from './protocol/memory-layout.ts';
