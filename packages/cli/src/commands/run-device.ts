import { createHash } from 'node:crypto';
import { checkDeviceOptions, createDevice, qemuOption } from '@ivshmem/device';
import { OptionError } from '@ivshmem/linux';
import { openDescriptorStore } from '@ivshmem/linux/process';
import { deviceOptions } from '../options/library-options.ts';
import {
  type DeviceEvent,
  deviceLines,
  deviceLog,
  deviceStats,
  followDevice,
} from '../output/device-events.ts';
import { deviceReporter } from '../output/part-reports.ts';
import { runUntilStopped } from '../running-command.ts';
import type { DeviceCommandOptions } from './device.ts';

/** Runs devices, one for each VM. */
export async function runDevices(options: DeviceCommandOptions): Promise<number> {
  const { socket, vfioUser: sockets = [], isolate = false, verbose = false, wait = false } = options;
  if (sockets.length === 0)
    throw new OptionError(
      '--vfio-user',
      '--vfio-user is missing: give the path of a socket where a VM connects',
    );
  const shared = { socketPath: socket, wait, ...deviceOptions(options) };
  // All of them before the first one starts.
  for (const [at, vfioUser] of sockets.entries()) {
    checkDeviceOptions({ ...shared, vfioUser });
    if (sockets.indexOf(vfioUser) < at)
      throw new OptionError(
        '--vfio-user',
        `--vfio-user ${vfioUser}: is given twice; each VM needs a socket of its own`,
      );
  }
  const text = {
    partOf: ({ vfioUser }: DeviceEvent) => vfioUser,
    linesOf: (event: DeviceEvent) => deviceLines(event, verbose),
  };
  return await runUntilStopped<DeviceEvent>('device', options, text, async ({ stop, print, add }) => {
    const store = openDescriptorStore(process.env, process.pid);
    // One after the other, so that their IDs are in the order of the options.
    for (const vfioUser of sockets) {
      const log = (line: string) => print(deviceLog(vfioUser, line));
      const device = await createDevice({ ...shared, vfioUser }, stop, log, store?.scope(scopeOf(vfioUser)));
      const report = deviceReporter(device, { ...shared, vfioUser });
      add(device, () => deviceStats(device, vfioUser), report);
      followDevice(device, { vfioUser, isolate, qemu: qemuOption(vfioUser) }, print);
    }
    // Of devices that are not among the options any more.
    store?.discardLeft();
  });
}

/** The part of the descriptor store that belongs to a device. Its name is as long as any path that is usual, and no longer. */
function scopeOf(vfioUser: string): string {
  const escaped = encodeURIComponent(vfioUser).length;
  return escaped <= 150 ? vfioUser : createHash('sha256').update(vfioUser).digest('hex');
}
