export * from './constants.ts';
export * from './epoll.ts';
export { check, SystemCallError } from './errors.ts';
export { createEventFd, drainEventFd, EventFd, signalEventFd } from './eventfd.ts';
export { closeFd, duplicateFd, setNonBlocking } from './fd.ts';
export { tryLockFile } from './file-lock.ts';
export { punchHole } from './file-range.ts';
export { mainPoller } from './main-poller.ts';
export { createMemfd, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, fileLength, sealsOf } from './memfd.ts';
export { type Mapping, mapPrivate, mapShared, PAGE_SIZE, setFileLength } from './memory.ts';
export {
  createSharedMemoryObject,
  openSharedMemoryObject,
  unlinkSharedMemoryObject,
} from './shared-memory-object.ts';
export { UnixListener } from './unix-listener.ts';
export { MAX_FDS, MAX_SOCKET_PATH, type PeerCredentials, UnixSocket } from './unix-socket.ts';
