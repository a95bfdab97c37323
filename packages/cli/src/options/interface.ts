import type { Command } from 'commander';
import { collect, wholeNumber } from './values.ts';

/** The options of a link's interface, as commander returns them. */
export interface InterfaceOptions {
  tap?: string;
  tapFd?: number;
  netns?: string;
  mtu?: number;
  mac?: string;
  address?: string[];
  bridge?: string;
  offload: boolean;
  busyPoll?: number;
}

export const DEFAULT_TAP = 'ivn0';

/** What to call the interface until its name is known. */
export function interfaceLabel({ tap, tapFd }: InterfaceOptions): string {
  return tap ?? (tapFd === undefined ? DEFAULT_TAP : `fd ${tapFd}`);
}

/** Adds them to a command. */
export function addInterfaceOptions(command: Command): Command {
  return command
    .option(
      '-t, --tap <interface>',
      `name of the TAP interface, created unless it exists (default: "${DEFAULT_TAP}")`,
    )
    .option(
      '--tap-fd <number>',
      'use an open TAP instead: a file descriptor inherited from the parent process',
      wholeNumber,
    )
    .option(
      '--netns <name|path>',
      'network namespace of the interface: a name in /run/netns, or a path (default: that of this command)',
    )
    .option(
      '--mtu <bytes>',
      'MTU of the interface, 68 to 65521, limited by the size of the output sections (default: the MTU of the bridge, if any; if the peer is ivshmem net, too, what both support: 1/16 of a section, at most 16384; otherwise 1500)',
      wholeNumber,
    )
    .option(
      '--mac <address>',
      'hardware address of the interface, such as 02:00:00:00:00:01 (default: random for a new interface)',
    )
    .option(
      '-a, --address <ip/prefix>',
      'IPv4 or IPv6 address of the interface, added unless it is set already (may be repeated)',
      collect,
    )
    .option('--bridge <bridge>', 'make the interface a port of this bridge, of the kernel or of Open vSwitch')
    .option('--no-offload', 'disable checksum and segmentation offload')
    .option(
      '--busy-poll <µs>',
      'keep polling this long before sleeping, if recent waits were short; 0: never (default: 50)',
      wholeNumber,
    );
}
