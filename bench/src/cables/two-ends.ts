import { type Netns, TAP_MAX_MTU } from '@ivshmem/linux/network';
import { type Cable, checkMtu, FIRST_MTU } from '../cable.ts';
import type { Carrier } from './carrier.ts';

export interface TwoEnds {
  readonly name: string;
  readonly namespaces: readonly [Netns, Netns];
  /** Of the second end. */
  readonly address: string;
  /** Starts both ends with this MTU, in bytes. */
  readonly start: (mtu: number) => Carrier[];
  /** Whether a line that an end prints says that it is there. */
  readonly isThere: (line: string) => boolean;
}

/** A cable that consists of a process for each end, both of which are started anew for another MTU. */
export async function twoEndCable(
  { name, namespaces, address, start, isThere }: TwoEnds,
  finallyDo: (cleanup: () => unknown) => void,
): Promise<Omit<Cable, 'close'>> {
  let ends: Carrier[] = [];
  const disconnect = () => Promise.all(ends.map((end) => end.stop()));
  finallyDo(disconnect);
  const connect = async (mtu: number) => {
    ends = start(mtu);
    await Promise.all(ends.map((end) => end.line(isThere)));
  };
  await connect(FIRST_MTU);
  return {
    name,
    from: namespaces[0],
    to: namespaces[1],
    address,
    get pids() {
      return ends.map(({ pid }) => pid);
    },
    async setMtu(mtu) {
      checkMtu(name, mtu, TAP_MAX_MTU);
      await disconnect();
      await connect(mtu);
    },
  };
}
