import type * as library from '@ivshmem/device';
import type { Command } from 'commander';
import { octalMode } from './values.ts';

/** The options of a device besides its sockets, as commander returns them. */
export interface DeviceOptions {
  isolate?: boolean;
  mode?: number;
  group?: string;
}

/** Adds them to a command. */
export function addDeviceOptions(command: Command): Command {
  return command
    .option(
      '--isolate',
      'trap guest accesses to the output sections of other peers: the guest cannot write to them, and reads are slow',
    )
    .option('--mode <mode>', 'permissions of the vfio-user socket, in octal (default: 600)', octalMode)
    .option('--group <group>', 'group of the vfio-user socket, by name or number');
}

/** What they are for a device. Throws OptionError for a group that does not exist. */
export async function deviceOptions(
  options: DeviceOptions,
): Promise<Pick<library.DeviceOptions, 'isolate' | 'mode' | 'group'>> {
  const { isolate = false, mode, group } = options;
  // Only --help needs none of this.
  const { groupId } = await import('@ivshmem/linux/process');
  return {
    isolate,
    ...(mode !== undefined && { mode }),
    ...(group !== undefined && { group: groupId(group) }),
  };
}
