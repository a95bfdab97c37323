// Symbol.dispose in the types, for users whose tsconfig.json does not list it in "lib".
/// <reference lib="esnext.disposable" preserve="true" />
export {
  askControl,
  type ControlMessage,
  type ControlRequestOptions,
  requestControl,
} from './control/control-client.ts';
export type { ControlClient, ControlHandler, ControlRequest } from './control/control-connection.ts';
export { ControlServer, type ControlServerOptions } from './control/control-server.ts';
export {
  type ControlSocketEntry,
  controlDirectories,
  controlSockets,
  ownControlDirectory,
} from './control/directory.ts';
export { type LinkPart, type LinkView, linksOf } from './report/links.ts';
export { type PartSnapshot, type WatchablePart, watchPart } from './report/part-watch.ts';
export {
  type DeviceReport,
  decodeProcessReport,
  type FailureReport,
  type InterfaceReport,
  isUp,
  linkName,
  type PartReport,
  type PeerReport,
  type ProcessReport,
  partName,
  type ServerReport,
} from './report/report.ts';
export { socketName } from './report/socket-name.ts';
export { type FoundProcess, type FoundProcesses, findProcesses, handleStatus } from './report/status.ts';
