export { parseServerArguments, ServerArgumentError, type ServerArguments, serverUsage } from './arguments.ts';
export { eventText, type HostServerEvent, type Peer } from './events.ts';
export { createHostServer, type HostServer, type HostServerOptions } from './host-server.ts';
export {
  HostServerOptionError,
  type HostServerSettings,
  MAX_SERVER_VECTORS,
  type SharedMemorySource,
} from './options.ts';
export { type RunServerOptions, runServer } from './run-server.ts';
