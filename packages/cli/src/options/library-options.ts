import type * as device from '@ivshmem/device';
import { OptionError } from '@ivshmem/linux';
import { groupId } from '@ivshmem/linux/process';
import type { LinkOptions } from '@ivshmem/net';
import type { DeviceOptions } from './device.ts';
import { DEFAULT_TAP, type InterfaceOptions } from './interface.ts';

// What options mean for the libraries. Apart from their declarations, since --help needs none of what this loads.

/** The options of a link for those of its interface. Throws {@link OptionError} if they exclude each other. */
export function linkOptions(options: InterfaceOptions): Omit<LinkOptions, 'port'> {
  const { tap, tapFd, netns, mtu, mac, address, bridge, offload, busyPoll } = options;
  if (tap !== undefined && tapFd !== undefined) {
    throw new OptionError('--tap', '--tap and --tap-fd exclude each other: give one of them');
  }
  return {
    ...(tapFd === undefined ? { tap: tap ?? DEFAULT_TAP } : { tapFd }),
    ...(address !== undefined && { addresses: address }),
    offload,
    ...(busyPoll !== undefined && { busyPoll }),
    ...(netns !== undefined && { netns }),
    ...(mtu !== undefined && { mtu }),
    ...(mac !== undefined && { mac }),
    ...(bridge !== undefined && { bridge }),
  };
}

/** The options of a device besides its sockets. Throws {@link OptionError} for a group that does not exist. */
export function deviceOptions({
  isolate = false,
  mode,
  group,
}: DeviceOptions): Pick<device.DeviceOptions, 'isolate' | 'mode' | 'group'> {
  return {
    isolate,
    ...(mode !== undefined && { mode }),
    ...(group !== undefined && { group: groupId(group) }),
  };
}
