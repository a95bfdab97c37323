export {
  parseServerArguments,
  type ServerArguments,
  type ServerDialect,
} from './arguments.ts';
export { type LinkConfiguration, parseConfiguration } from './configuration.ts';
export { CONTROL_SUFFIX, type ControlSocket, listenControl } from './control-socket.ts';
export { type LinkServer, LinkSet, type LinkSetOptions, type ReloadResult } from './link-set.ts';
export { createMetrics, type ServerMetrics } from './metrics.ts';
export { type PeerList, queryPeers } from './peer-list.ts';
export { type RunServerOptions, runServer } from './run-server.ts';
export type { Environment } from './service-manager.ts';
export { parseMode, parseSize } from './sizes.ts';
export { serverUsage } from './usage.ts';
