// Symbol.asyncDispose in the types, for users whose tsconfig.json does not list it in "lib".
/// <reference lib="esnext.disposable" preserve="true" />
export type { CounterName, LinkStats } from './counters.ts';
export { type Ethernet, type EthernetOptions, openEthernet } from './ethernet.ts';
export { createLink, type Link, preloadLink } from './link.ts';
export type { EthernetInfo, LinkInfo, LinkStatus } from './link-messages.ts';
export { checkLinkOptions, DEFAULT_BUSY_POLL, type LinkOptions, MAX_BUSY_POLL } from './link-options.ts';
export type { Offload } from './offload.ts';
