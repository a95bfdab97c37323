export { addAddress, addRoute, ensureAddress, type Route, setIpv6 } from './address.ts';
export { missingNetworkCapabilities, missingNetworkPrivilege, tunProblem } from './capabilities.ts';
export {
  checkInterfaceName,
  createBridge,
  createVeth,
  deleteInterface,
  getInterface,
  type InterfaceChange,
  type InterfaceId,
  linkIndex,
  listInterfaces,
  type NetworkInterface,
  setInterface,
  waitForInterface,
} from './interface.ts';
export { InterfaceMonitor } from './interface-monitor.ts';
export {
  AF_INET,
  AF_INET6,
  type IpAddress,
  type IpPrefix,
  parseIpAddress,
  parseIpPrefix,
} from './ip-address.ts';
export { IpSocket, type IpSocketType, MSG_NOSIGNAL, openIpSocket } from './ip-socket.ts';
export { createNamedNetns, deleteNamedNetns, listNamedNetns } from './named-netns.ts';
export { namespaceLimits } from './namespace-limits.ts';
export { NETNS_DIRECTORY, Netns } from './netns.ts';
export { addOvsPort, isOvsBridge, removeOvsPort } from './open-vswitch.ts';
export { openPacketSocket, PacketSocket } from './packet-socket.ts';
export { openTap, TAP_MAX_MTU, Tap, type TapOptions, TunOffload, tapOf, VNET_HEADER_SIZE } from './tap.ts';
