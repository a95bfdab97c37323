// Symbol.asyncDispose in the types, for users whose tsconfig.json does not list it in "lib".
/// <reference lib="esnext.disposable" preserve="true" />
export { type Capture, type CaptureCounters, type CaptureOptions, startCapture } from './capture.ts';
export * from './pcapng.ts';
