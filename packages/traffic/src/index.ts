export { percentile } from './percentile.ts';
export { type EchoOptions, type PingOptions, ping } from './ping.ts';
export type { RunOptions } from './run-workers.ts';
export { type TcpTransferOptions, type TcpTransferResult, tcpTransfer } from './tcp.ts';
export { CONGESTION_CONTROL } from './tcp-options.ts';
export { type UdpTransferOptions, type UdpTransferResult, udpTransfer } from './udp.ts';
export { type UdpEchoOptions, udpEcho } from './udp-echo.ts';
export { connectByVeth, type VethOptions } from './veth.ts';
export type { EchoResult } from './worker/tasks.ts';
