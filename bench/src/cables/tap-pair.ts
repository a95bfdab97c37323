import { addAddress, Netns, setInterface, waitForInterface } from '@ivshmem/linux/network';
import { assembleCable, type Cable, checkMtu, FIRST_MTU, untilPassing } from '../cable.ts';
import type { Carrier } from './carrier.ts';

/** A program of others that joins two TAP interfaces which it makes itself. */
export interface TapPairOptions {
  readonly name: string;
  /** Both ends have addresses in this /24, such as `10.66.0`. */
  readonly network: string;
  /** Of the interface, in either namespace. */
  readonly tap: string;
  /** In bytes. */
  readonly maxMtu: number;
  /** Starts what runs for both ends together. */
  readonly startCommon?: () => Promise<Carrier>;
  /** Starts what makes the TAP interface of an end, in its network namespace. */
  readonly startEnd: (end: 0 | 1, netns: Netns) => Carrier;
  /** Cleans up when all processes have ended. */
  readonly cleanup?: () => void;
}

/** Two TAP interfaces in network namespaces of their own, joined by the processes of a program. */
export function tapPairCable(options: TapPairOptions): Promise<Cable> {
  const { name, network, tap, maxMtu } = options;
  return assembleCable(async (finallyDo) => {
    if (options.cleanup !== undefined) finallyDo(options.cleanup);
    const namespaces = [Netns.create(), Netns.create()] as const;
    for (const netns of namespaces) finallyDo(() => netns.close());
    const common = await options.startCommon?.();
    if (common !== undefined) finallyDo(() => common.stop());
    const ends: Carrier[] = [];
    finallyDo(() => Promise.all(ends.map((end) => end.stop())));
    for (const [index, netns] of namespaces.entries()) {
      ends.push(options.startEnd(index as 0 | 1, netns));
      netns.run(() => waitForInterface(tap, (found) => found !== null));
    }
    for (const [index, netns] of namespaces.entries()) {
      netns.run(() => {
        setInterface(tap, { mtu: FIRST_MTU, up: true });
        addAddress(tap, `${network}.${index + 1}/24`);
      });
    }
    const address = `${network}.2`;
    await untilPassing(namespaces[0], address);
    return {
      name,
      from: namespaces[0],
      to: namespaces[1],
      address,
      get pids() {
        return [...(common === undefined ? [] : [common.pid]), ...ends.map(({ pid }) => pid)];
      },
      async setMtu(mtu) {
        checkMtu(name, mtu, maxMtu);
        for (const netns of namespaces) netns.run(() => setInterface(tap, { mtu }));
      },
    };
  });
}
