// Symbol.dispose in the types, for users whose tsconfig.json does not list it in "lib".
/// <reference lib="esnext.disposable" preserve="true" />
export { groupId, MAX_ID, userId } from './accounts.ts';
export { DescriptorKeeper } from './descriptor-keeper.ts';
export {
  type DescriptorStore,
  type DescriptorStoreHandle,
  descriptorStoreOf,
  isStored,
  openDescriptorStore,
} from './descriptor-store.ts';
export { isFileInUse, markFileInUse, tryLockFile } from './file-lock.ts';
export { type Notification, NotifySocket } from './notify-socket.ts';
export {
  type OpenFilesLimit,
  openFilesLimit,
  raiseOpenFilesLimit,
  setOpenFilesLimit,
} from './open-files-limit.ts';
export { type NonBlockingWriter, nonBlockingWriter, type Output, openOutput } from './output.ts';
export { type Environment, type PassedDescriptor, passedDescriptors } from './passed-descriptors.ts';
export { escapeJson, printable } from './printable.ts';
export { hasProcessEnded } from './process-state.ts';
export { type ServiceNotifier, serviceNotifier } from './service-notification.ts';
export { handOver, STANDBY, standBy } from './standby.ts';
