import type { DeviceOptions } from '@ivshmem/device';
import { parseMode } from '@ivshmem/host-server/service';
import { groupId } from '@ivshmem/linux/process';
import { type Command, InvalidArgumentError } from 'commander';

/** The options of a device besides its sockets, as commander gives them. */
export interface DeviceCommandOptions {
  isolate: boolean;
  mode?: number;
  group?: number;
}

/** Adds them to a command. */
export function addDeviceOptions(command: Command): Command {
  return command
    .option(
      '--isolate',
      "trap the guest's accesses to the output sections of others: protected, but slow",
      false,
    )
    .option('--mode <mode>', 'permissions of the vfio-user socket in octal; default 600', octalMode)
    .option('--group <group>', 'group of the vfio-user socket, by name or number', groupId);
}

/** What they mean for a device. */
export function deviceOptions(
  options: DeviceCommandOptions,
): Pick<DeviceOptions, 'isolate' | 'mode' | 'group'> {
  const { isolate, mode, group } = options;
  return { isolate, ...(mode !== undefined && { mode }), ...(group !== undefined && { group }) };
}

function octalMode(text: string): number {
  const mode = parseMode(text);
  if (mode === null) throw new InvalidArgumentError('It must be permissions in octal, such as 660.');
  return mode;
}
