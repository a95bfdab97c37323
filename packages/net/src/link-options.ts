import { checkOption, checkWholeNumber, OptionError } from '@ivshmem/linux';
import { checkInterfaceName, parseIpPrefix, TAP_MAX_MTU } from '@ivshmem/linux/network';
import type { DescriptorStore } from '@ivshmem/linux/process';
import { checkSocketPath } from '@ivshmem/linux/socket';
import { checkPciDevice, type PortSource } from '@ivshmem/transport';
import { MIN_MTU } from '@ivshmem/transport/protocol';

/** The options of a link. */
export interface LinkOptions {
  /** Where the port comes from. */
  readonly port: PortSource;
  /**
   * Name of the TAP interface, 1 … 15 bytes. The interface is created, and removed when the link ends, unless a persistent
   * one of that name exists. Give either this or {@link tapFd}.
   */
  readonly tap?: string;
  /**
   * An open TAP instead: a descriptor of this process with IFF_TAP | IFF_NO_PI, with or without IFF_VNET_HDR. The caller
   * keeps it, and must not close it before the link is up; it becomes non-blocking. The link uses a duplicate. The kernel
   * removes an interface that is not persistent when both are closed.
   */
  readonly tapFd?: number;
  /** Network namespace of the interface: a name under /run/netns, or a path such as /proc/123/ns/net. */
  readonly netns?: string;
  /**
   * Bytes, 68 … what the sections allow. By default the bridge's, if the interface joins one; otherwise the one negotiated
   * with the peer, if it supports the MTU extension; otherwise 1500, or less if the sections are small.
   * Source: protocol page, section 15.
   */
  readonly mtu?: number;
  /** Hardware address, such as 02:00:00:00:00:01. By default a new interface gets a random one; an existing one keeps its own. */
  readonly mac?: string;
  /** Addresses with prefix length, such as 10.0.0.1/24 or fd00::1/64. */
  readonly addresses?: readonly string[];
  /** Bridge that the interface becomes a port of. */
  readonly bridge?: string;
  /**
   * Whether each side may leave checksums and segmentation to the other, if both support it (default true). Source:
   * protocol page, section 14.
   */
  readonly offload?: boolean;
  /**
   * Keep polling this long before sleeping, in µs, 0 … 1 000 000, if recent waits were shorter than four times that on
   * average; by default {@link DEFAULT_BUSY_POLL}. An idle link always sleeps.
   */
  readonly busyPoll?: number;
  /**
   * Whether to wait for the port if it cannot be opened yet, such as for a host server that is started later (default
   * false).
   */
  readonly wait?: boolean;
  /**
   * Keeps interface and port on the host server for the next process with the same options, which continues on them, also after
   * SIGKILL: the interface keeps its addresses and routes, and the host server does not notice. Nothing else may be in it; the link
   * takes it over. Not with {@link tapFd}.
   */
  readonly store?: DescriptorStore | undefined;
}

/** In µs: about the cost of a sleep and a wakeup. */
export const DEFAULT_BUSY_POLL = 50;

/** The longest {@link LinkOptions.busyPoll}, in µs. */
export const MAX_BUSY_POLL = 1_000_000;

/** Throws {@link OptionError}, with one line that names the option, if one is invalid whatever the server offers. */
export function checkLinkOptions(options: LinkOptions): void {
  checkTap(options);
  checkPortAndMtu(options);
  checkName('bridge', options.bridge);
  const { mac, busyPoll = DEFAULT_BUSY_POLL } = options;
  // Not a multicast address, nor zero, which the kernel rejects.
  if (mac !== undefined && !/^(?!00(:00){5}$)[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/i.test(mac)) {
    throw new OptionError('mac', `MAC address ${mac}: must be a unicast address such as 02:00:00:00:00:01`);
  }
  checkOption('addresses', () => options.addresses?.forEach(parseIpPrefix));
  if (!(busyPoll >= 0 && busyPoll <= MAX_BUSY_POLL)) {
    throw new OptionError('busyPoll', `busy-poll time ${busyPoll}: must be 0 to ${MAX_BUSY_POLL} µs`);
  }
}

/** The options of every link. Throws as {@link checkLinkOptions} does. */
export function checkPortAndMtu({ port, mtu }: Pick<LinkOptions, 'port' | 'mtu'>): void {
  if (port.type === 'server') checkSocketPath('socketPath', port.socketPath);
  if (port.type === 'pci') checkPciDevice(port.device);
  if (mtu !== undefined) checkWholeNumber('mtu', 'MTU', mtu, [MIN_MTU, TAP_MAX_MTU], 'bytes');
}

function checkTap({ tap, tapFd, netns, store }: LinkOptions): void {
  if ((tap === undefined) === (tapFd === undefined)) {
    throw new OptionError('tap', 'TAP: give either the name of an interface (tap) or a descriptor (tapFd)');
  }
  checkName('tap', tap);
  if (netns === '') throw new OptionError('netns', 'network namespace "": must not be empty');
  if (tapFd === undefined) return;
  if (!(Number.isInteger(tapFd) && tapFd >= 0 && tapFd <= 0x7fffffff)) {
    throw new OptionError('tapFd', `TAP descriptor ${tapFd}: must be the number of an open descriptor`);
  }
  if (store !== undefined) {
    throw new OptionError('store', `TAP descriptor ${tapFd}: its owner keeps it: give no store`);
  }
  if (netns !== undefined) {
    throw new OptionError(
      'netns',
      `TAP descriptor ${tapFd}: its network namespace is that of its interface: leave out ${netns}`,
    );
  }
}

function checkName(option: 'tap' | 'bridge', name: string | undefined): void {
  if (name !== undefined) checkOption(option, () => checkInterfaceName(name));
}
