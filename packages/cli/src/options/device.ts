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
