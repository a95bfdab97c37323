export { type Dump, dumpLines } from './bytes.ts';
export { type Check, Failure, type Level, Skip } from './check.ts';
export { Journal } from './journal.ts';
export { Pace } from './pace.ts';
export { reportFormats } from './report/formats.ts';
export { listChecks } from './report/people.ts';
export type { Report } from './report/report.ts';
export {
  type CheckInfo,
  conforms,
  type Result,
  type RunOptions,
  runChecks,
  type Subject,
  selectChecks,
} from './runner.ts';
export { serverChecks } from './server/checks.ts';
export {
  type RunningServer,
  type ServerCheck,
  type ServerContext,
  type ServerSettings,
  type ServerSource,
  ServerSubject,
  serverCommand,
} from './server/subject.ts';
