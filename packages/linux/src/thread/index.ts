export {
  type BlockingThread,
  preloadThread,
  runBlockingThread,
  startBlockingThread,
} from './blocking-thread.ts';
export { type LogReport, Reports } from './reports.ts';
