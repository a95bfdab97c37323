// Symbol.asyncDispose in the types, for users whose tsconfig.json does not list it in "lib".
/// <reference lib="esnext.disposable" preserve="true" />
export { type AccessList, allowedBy } from './server/access.ts';
export { DescriptorBudget } from './server/descriptor-budget.ts';
export {
  type DepartureCause,
  eventText,
  type HostServerEvent,
  type Peer,
  type RefusalCause,
} from './server/events.ts';
export { createHostServer, type HostServer, type HostServerOptions } from './server/host-server.ts';
export { handleObserve, type Observed, type ObservedLink, observeServer } from './server/observe.ts';
export {
  type HostServerSettings,
  MAX_SERVER_VECTORS,
  type SharedMemorySource,
} from './server/options.ts';
export { serverReport } from './server/server-report.ts';
