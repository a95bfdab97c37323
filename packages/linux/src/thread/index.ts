export { type BlockingThread, runBlockingThread, startBlockingThread } from './blocking-thread.ts';
export { type LogReport, Reports } from './reports.ts';
