import {
  addAddress,
  createVeth,
  deleteInterface,
  type Netns,
  setInterface,
  waitForInterface,
} from '@ivshmem/linux/network';

export interface VethOptions {
  /** Names of the two ends. Default: `veth0` in both namespaces. */
  readonly names?: readonly [string, string];
  /** In bytes. Default: 1500. */
  readonly mtu?: number;
  /** Addresses of each end: `10.0.0.1/24`, `fd00::1/64`. */
  readonly addresses?: readonly [readonly string[], readonly string[]];
}

/**
 * Connects two network namespaces by a veth pair, and returns when packets can pass. The pair is deleted with either
 * namespace. Blocks the thread for some milliseconds. Throws RangeError and SystemCallError, after deleting the pair.
 */
export function connectByVeth(a: Netns, b: Netns, options: VethOptions = {}): void {
  const { names = ['veth0', 'veth0'], mtu = 1500, addresses = [[], []] } = options;
  const ends = [
    { netns: a, name: names[0], addresses: addresses[0] },
    { netns: b, name: names[1], addresses: addresses[1] },
  ];
  a.run(() => createVeth(names[0], names[1], { peerNetns: b.fd }));
  try {
    for (const { netns, name, addresses } of ends) {
      netns.run(() => {
        setInterface(name, { mtu, up: true });
        for (const address of addresses) addAddress(name, address);
      });
    }
    // The kernel drops packets until it has noticed the carrier.
    for (const { netns, name } of ends) {
      netns.run(() => waitForInterface(name, (found) => found?.operState === 'up'));
    }
  } catch (error) {
    a.run(() => deleteInterface(names[0]));
    throw error;
  }
}
