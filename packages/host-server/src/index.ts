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
export {
  type HostServerSettings,
  MAX_SERVER_VECTORS,
  type SharedMemorySource,
} from './server/options.ts';
