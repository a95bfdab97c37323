export * from './memory-layout.ts';
export type * from './port.ts';
export * from './ring-layout.ts';
export { RxQueue } from './rx-queue.ts';
export { type ReceivedMessage, ServerConnection } from './server-connection.ts';
export * from './server-messages.ts';
export { TxQueue } from './tx-queue.ts';
export { Violation, violationText } from './violation.ts';
