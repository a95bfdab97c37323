import { Netns, setInterface } from '@ivshmem/linux/network';
import { connectByVeth } from '@ivshmem/traffic';
import { assembleCable, type Cable, checkMtu, FIRST_MTU } from '../cable.ts';

/** Of a veth interface, in bytes. */
const MAX_MTU = 65535;

/** A veth pair, which passes frames by reference and TCP segments of 64 KiB whole. */
export function vethCable(): Promise<Cable> {
  return assembleCable(async (finallyDo) => {
    const namespaces = [Netns.create(), Netns.create()] as const;
    for (const netns of namespaces) finallyDo(() => netns.close());
    connectByVeth(...namespaces, { mtu: FIRST_MTU, addresses: [['10.65.0.1/24'], ['10.65.0.2/24']] });
    return {
      name: 'veth',
      from: namespaces[0],
      to: namespaces[1],
      address: '10.65.0.2',
      pids: [],
      async setMtu(mtu) {
        checkMtu('veth', mtu, MAX_MTU);
        for (const netns of namespaces) netns.run(() => setInterface('veth0', { mtu }));
      },
    };
  });
}
