import { DEFAULT_BUSY_POLL, type LinkOptions } from '@ivshmem/net';
import type { Command } from 'commander';
import { collect, UsageError, wholeNumber } from './exit.ts';

/** The options of a link's interface, as commander gives them. */
export interface TapOptions {
  tap?: string;
  tapFd?: number;
  netns?: string;
  mtu?: number;
  mac?: string;
  address: string[];
  bridge?: string;
  offload: boolean;
  busyPoll: number;
}

const DEFAULT_TAP = 'ivn0';

/** What to call the interface before its name is known. */
export function tapLabel({ tap, tapFd }: TapOptions): string {
  return tap ?? (tapFd === undefined ? DEFAULT_TAP : `fd ${tapFd}`);
}

/** Adds them to a command. */
export function addTapOptions(command: Command): Command {
  return command
    .option('-t, --tap <name>', `TAP interface, made unless it exists (default: "${DEFAULT_TAP}")`)
    .option(
      '--tap-fd <number>',
      'an open TAP instead, inherited from the program that starts this one',
      wholeNumber,
    )
    .option('--netns <name|path>', 'network namespace of the interface: a name under /run/netns, or a path')
    .option(
      '--mtu <bytes>',
      '68 to 65521, as far as the output sections allow it (default: that of the bridge, if any; what suits both ends if the peer is ivshmem net, too: 1/16 of a section, 16384 at most; else 1500)',
      wholeNumber,
    )
    .option(
      '--mac <address>',
      'hardware address of the interface, such as 02:00:00:00:00:01 (default: a random one, if it is made)',
    )
    .option(
      '-a, --address <ip/prefix>',
      'IPv4 or IPv6 address of the interface, added unless it is there (may be repeated)',
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
  const { tap, tapFd, netns, mtu, mac, address, bridge, offload, busyPoll } = options;
  if (tap !== undefined && tapFd !== undefined) {
    throw new UsageError('--tap and --tap-fd exclude each other: give one of them');
  }
  return {
    ...(tapFd === undefined ? { tap: tap ?? DEFAULT_TAP } : { tapFd }),
    addresses: address,
    offload,
    busyPoll,
    ...(netns !== undefined && { netns }),
    ...(mtu !== undefined && { mtu }),
    ...(mac !== undefined && { mac }),
    ...(bridge !== undefined && { bridge }),
  };
}
