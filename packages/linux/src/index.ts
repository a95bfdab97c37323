export * from './constants.ts';
export * from './epoll.ts';
export { check, SystemCallError } from './errors.ts';
export { createEventFd, drainEventFd, EventFd, signalEventFd } from './eventfd.ts';
export { closeFd, duplicateFd, setNonBlocking } from './fd.ts';
export { mainPoller } from './main-poller.ts';
export { createMemfd, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, fileLength, sealsOf } from './memfd.ts';
export { type Mapping, mapPrivate, mapShared, PAGE_SIZE, setFileLength } from './memory.ts';
