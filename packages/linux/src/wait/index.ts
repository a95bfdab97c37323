export { prepareSignals, releaseSignals, signalEventFd } from './doorbell.ts';
export * from './epoll.ts';
export { clearEventFd, createEventFd, drainEventFd, EventFd, eventFdId, isEventFd } from './eventfd.ts';
export { mainPoller } from './main-poller.ts';
export { realTime } from './real-time.ts';
export { Timer } from './timer.ts';
