import { checkWholeNumber, OptionError } from '@ivshmem/linux';
import { MAX_ID } from '@ivshmem/linux/process';
import { checkSocketPath } from '@ivshmem/linux/socket';

/** Options of `device.ts`. */
export interface DeviceOptions {
  /** Socket of the host server whose peer the device is. */
  readonly socketPath: string;
  /** Socket to listen at for the VMM, by vfio-user. */
  readonly vfioUser: string;
  /**
   * Traps the guest's accesses to the output sections of other peers, so that it cannot write them; reading them becomes
   * slow. By default they are mapped, and only the guest's driver keeps the guest from writing them.
   */
  readonly isolate?: boolean;
  /** Permissions of the socket: a VMM needs write permission to connect. Default 0o600. */
  readonly mode?: number;
  /** A gid, the group of the socket. Default: that of this process. */
  readonly group?: number;
  /** Whether to wait for the host server if it cannot be reached yet. Default false. */
  readonly wait?: boolean;
}

/** Throws {@link OptionError}, with one line that names the option, if one cannot be right. */
export function checkDeviceOptions({ socketPath, vfioUser, mode = 0o600, group }: DeviceOptions): void {
  checkSocketPath('socketPath', socketPath, 'host server socket');
  checkSocketPath('vfioUser', vfioUser, 'vfio-user socket');
  if (socketPath === vfioUser) {
    throw new OptionError(
      'vfioUser',
      `vfio-user socket ${vfioUser}: is that of the host server; choose another path`,
    );
  }
  checkWholeNumber('mode', 'socket mode', mode, [0, 0o777]);
  if (group !== undefined) checkWholeNumber('group', 'group', group, [0, MAX_ID]);
}

/** The option that makes QEMU (10.1 or later) use the device at a vfio-user socket. */
export function qemuOption(path: string): string {
  const device = { driver: 'vfio-user-pci', socket: { type: 'unix', path } };
  return `-device '${JSON.stringify(device).replaceAll("'", "'\\''")}'`;
}
