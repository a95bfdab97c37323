import { addAddress, Netns, setInterface, waitForInterface } from '@ivshmem/linux';
import { assembleCable, type Cable, FIRST_MTU, untilPassing } from '../cable.ts';
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
  /** Starts what makes the TAP interface of an end, in its network namespace, for packets of up to `mtu` bytes. */
  readonly startEnd: (end: 0 | 1, netns: Netns, mtu: number) => Carrier;
  /** Whether the ends must be started anew for another MTU. */
  readonly restartForMtu?: boolean;
  /** Takes away what is left when all processes have ended. */
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
    const stopEnds = async () => {
      await Promise.all(ends.splice(0).map((end) => end.stop()));
      // The interfaces go a moment after their processes.
      for (const netns of namespaces) netns.run(() => waitForInterface(tap, (found) => found === null));
    };
    finallyDo(stopEnds);
    const startEnds = async (mtu: number) => {
      for (const [index, netns] of namespaces.entries()) {
        ends.push(options.startEnd(index as 0 | 1, netns, mtu));
        netns.run(() => waitForInterface(tap, (found) => found !== null));
      }
      for (const [index, netns] of namespaces.entries()) {
        netns.run(() => {
          setInterface(tap, { mtu, up: true });
          addAddress(tap, `${network}.${index + 1}/24`);
        });
      }
      await untilPassing(namespaces[0], address);
    };
    const address = `${network}.2`;
    await startEnds(FIRST_MTU);
    return {
      name,
      from: namespaces[0],
      to: namespaces[1],
      address,
      get pids() {
        return [...(common === undefined ? [] : [common.pid]), ...ends.map(({ pid }) => pid)];
      },
      async setMtu(mtu) {
        if (mtu > maxMtu) throw new RangeError(`${name}: MTU ${mtu}: must be ${maxMtu} at most`);
        if (options.restartForMtu) {
          await stopEnds();
          await startEnds(mtu);
        } else {
          for (const netns of namespaces) netns.run(() => setInterface(tap, { mtu }));
        }
      },
      suspend: () => {
        for (const end of ends) end.kill('SIGSTOP');
      },
      resume: () => {
        for (const end of ends) end.kill('SIGCONT');
      },
    };
  });
}
