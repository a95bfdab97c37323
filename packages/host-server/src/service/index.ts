export type { Environment } from '@ivshmem/linux/process';
export { type LinkConfiguration, parseConfiguration } from './configuration.ts';
export type { LogOutput } from './log.ts';
export { type ServerDialect, type ServerOption, serverOptions } from './option-table.ts';
export { queryPeers } from './peer-list.ts';
export { type RunServerOptions, runServer } from './run-server.ts';
export { parseMode, parseSize } from './sizes.ts';
export { SERVER_EXAMPLES, SERVER_NOTES, serverUsage } from './usage.ts';
