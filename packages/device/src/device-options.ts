import { MAX_SOCKET_PATH } from '@ivshmem/linux/socket';

/** What a device is made of. */
export interface DeviceOptions {
  /** Socket of the host server whose peer the device is. */
  readonly socketPath: string;
  /** Socket to listen at for the VMM, by vfio-user. */
  readonly vfioUser: string;
  /**
   * Traps the guest's accesses to the output sections of other peers, so that it cannot write them; reading them becomes
   * slow. By default they are mapped, and it is up to the guest to leave them alone.
   */
  readonly isolate?: boolean;
  /** Permissions of the socket: who may connect needs write permission. Default 0o600. */
  readonly mode?: number;
  /** A gid, the group of the socket. Default: that of this process. */
  readonly group?: number;
  /** Whether to wait for the host server if it cannot be reached yet (false unless given). */
  readonly wait?: boolean;
}

/** Throws RangeError, with one line that names the option, where one can't be right. */
export function checkDeviceOptions({ socketPath, vfioUser, mode = 0o600, group }: DeviceOptions): void {
  checkSocketPath('host server', socketPath);
  checkSocketPath('vfio-user', vfioUser);
  if (socketPath === vfioUser) {
    throw new RangeError(`vfio-user socket ${vfioUser}: is that of the host server; choose another path`);
  }
  if (!(Number.isInteger(mode) && mode >= 0 && mode <= 0o777)) {
    throw new RangeError(`socket mode ${mode}: must be 0 to ${0o777}, 0o777`);
  }
  if (group !== undefined && !(Number.isInteger(group) && group >= 0 && group < 0xffffffff)) {
    throw new RangeError(`group ${group}: must be a group ID, 0 to ${0xfffffffe}`);
  }
}

function checkSocketPath(what: string, path: string): void {
  const length = Buffer.byteLength(path);
  if (length >= 1 && length <= MAX_SOCKET_PATH && !path.includes('\0')) return;
  throw new RangeError(
    `${what} socket ${JSON.stringify(path)}: must be a path of 1 to ${MAX_SOCKET_PATH} bytes, not ${length}`,
  );
}

/** The option that makes QEMU (10.1 or later) use the device at a vfio-user socket. */
export function qemuOption(path: string): string {
  const device = { driver: 'vfio-user-pci', socket: { type: 'unix', path } };
  return `-device '${JSON.stringify(device).replaceAll("'", "'\\''")}'`;
}
