export * from './memory-layout.ts';
export type * from './port.ts';
