import { DEFAULT_BUSY_POLL, type LinkOptions } from '@ivshmem/net';
import type { Command } from 'commander';
import { collect, wholeNumber } from './exit.ts';

/** The options of a link's interface, as commander gives them. */
export interface TapOptions {
  tap: string;
  netns?: string;
  mtu?: number;
  mac?: string;
  address: string[];
  bridge?: string;
  offload: boolean;
  busyPoll: number;
}

/** Adds them to a command. */
export function addTapOptions(command: Command): Command {
  return command
    .option('-t, --tap <name>', 'TAP interface, made unless it exists', 'ivn0')
    .option('--netns <name|path>', 'network namespace of the interface: a name under /run/netns, or a path')
    .option(
      '--mtu <bytes>',
      '68 to 65521, as far as the output sections allow it (default: that of the bridge, if any; what suits both ends if the peer is ivshmem net, too: 1/16 of a section, 16384 at most; else 1500)',
      wholeNumber,
    )
    .option('--mac <address>', 'hardware address of the interface, such as 02:00:00:00:00:01')
    .option(
      '-a, --address <ip/prefix>',
      'IPv4 or IPv6 address of the interface (may be repeated)',
      collect,
      [],
    )
    .option('--bridge <name>', 'bridge that the interface becomes a port of')
    .option('--no-offload', 'compute checksums and cut TCP segments before they cross the link')
    .option(
      '--busy-poll <µs>',
      'look for more work up to so long before sleeping, while that pays off; 0: never',
      wholeNumber,
      DEFAULT_BUSY_POLL,
    );
}

/** What they mean for a link. */
export function linkOptions(options: TapOptions): Omit<LinkOptions, 'port'> {
  const { tap, netns, mtu, mac, address, bridge, offload, busyPoll } = options;
  return {
    tap,
    addresses: address,
    offload,
    busyPoll,
    ...(netns !== undefined && { netns }),
    ...(mtu !== undefined && { mtu }),
    ...(mac !== undefined && { mac }),
    ...(bridge !== undefined && { bridge }),
  };
}
