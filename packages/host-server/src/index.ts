export { eventText, type HostServerEvent, type Peer } from './events.ts';
export { createHostServer, type HostServer, type HostServerOptions } from './host-server.ts';
export {
  HostServerOptionError,
  type HostServerSettings,
  MAX_SERVER_VECTORS,
  type SharedMemorySource,
} from './options.ts';
