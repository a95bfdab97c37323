export type { Environment } from '@ivshmem/linux/process';
export type { ServerDialect } from './arguments.ts';
export { type LinkConfiguration, parseConfiguration } from './configuration.ts';
export type { LogOutput } from './log.ts';
export { type PeerList, queryPeers } from './peer-list.ts';
export { type RunServerOptions, runServer } from './run-server.ts';
export { parseMode, parseSize } from './sizes.ts';
export { serverUsage } from './usage.ts';
