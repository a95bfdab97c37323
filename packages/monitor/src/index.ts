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
