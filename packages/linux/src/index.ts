// Symbol.dispose in the types, for users whose tsconfig.json does not list it in "lib".
/// <reference lib="esnext.disposable" preserve="true" />
export { groupId, userId } from './accounts.ts';
export { addAddress, addRoute, ensureAddress, type Route, setIpv6 } from './address.ts';
export { type BlockingThread, runBlockingThread, startBlockingThread } from './blocking-thread.ts';
export { missingNetworkPrivilege } from './capabilities.ts';
export * from './constants.ts';
export { prepareSignals, releaseSignals, signalEventFd } from './doorbell.ts';
export * from './epoll.ts';
export { check, limitRemedy, SystemCallError, threadError } from './errors.ts';
export { clearEventFd, createEventFd, drainEventFd, EventFd, isEventFd } from './eventfd.ts';
export { closeFd, duplicateFd, setNonBlocking } from './fd.ts';
export { isFileInUse, markFileInUse, tryLockFile } from './file-lock.ts';
export { dataRanges, punchHole, reserveRange } from './file-range.ts';
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
// Unchecked, for hot paths: -1 means that errno() tells why.
export { errno, read, readv, recv, schedYield as yieldProcessor, send, write, writev } from './libc.ts';
export { mainPoller } from './main-poller.ts';
export {
  createMemfd,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
  fileLength,
  isRegularFile,
  reserveHugePages,
  sealsOf,
} from './memfd.ts';
export { type Mapping, mapPrivate, mapShared, PAGE_SIZE, setFileLength } from './memory.ts';
export { createNamedNetns, deleteNamedNetns, listNamedNetns } from './named-netns.ts';
export { namespaceLimits } from './namespace-limits.ts';
export { NETNS_DIRECTORY, Netns } from './netns.ts';
export {
  type OpenFilesLimit,
  openFilesLimit,
  raiseOpenFilesLimit,
  setOpenFilesLimit,
} from './open-files-limit.ts';
export { type Output, openOutput } from './output.ts';
export { openPacketSocket, PacketSocket } from './packet-socket.ts';
export {
  bindPciDriver,
  iommuGroup,
  listPciDevices,
  openPciResources,
  type PciDevice,
  pciDevicePath,
  readPciConfig,
} from './pci.ts';
export { escapeJson, printable } from './printable.ts';
export { hasProcessEnded } from './process-state.ts';
export { type LogReport, Reports } from './reports.ts';
export { type ServiceNotifier, serviceNotifier } from './service-notification.ts';
export {
  createSharedMemoryObject,
  openSharedMemoryObject,
  unlinkSharedMemoryObject,
} from './shared-memory-object.ts';
export { setReceiveTimeout, setSendTimeout } from './socket-timeout.ts';
export { openTap, TAP_MAX_MTU, Tap, type TapOptions, TunOffload, tapOf, VNET_HEADER_SIZE } from './tap.ts';
export { Timer } from './timer.ts';
export { listeningPath, UnixListener } from './unix-listener.ts';
export { MAX_FDS, MAX_SOCKET_PATH, type PeerCredentials, UnixSocket } from './unix-socket.ts';
export { openVfioDevice, type VfioDevice } from './vfio.ts';
