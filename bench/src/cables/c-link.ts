import { closeFd } from '@ivshmem/linux';
import { createMemfd } from '@ivshmem/linux/memory';
import {
  addAddress,
  Netns,
  openTap,
  setInterface,
  type Tap,
  TunOffload,
  VNET_HEADER_SIZE,
} from '@ivshmem/linux/network';
import { createEventFd } from '@ivshmem/linux/wait';
import { DEFAULT_BUSY_POLL } from '@ivshmem/net';
import { cReference } from '../c-reference.ts';
import { assembleCable, type Cable } from '../cable.ts';
import { type Carrier, startCarrier } from './carrier.ts';
import { type IvshmemSettings, OUTPUT_SECTION_SIZE } from './ivshmem.ts';
import { twoEndCable } from './two-ends.ts';

const TAP = 'c0';
const OFFLOADS = TunOffload.CSUM | TunOffload.TSO4 | TunOffload.TSO6 | TunOffload.TSO_ECN;

/** The C reference: bench/reference/tap-link.c in a process for each end. Throws Error if it cannot be compiled. */
export function cLinkCable(name = 'C', settings: IvshmemSettings = {}): Promise<Cable> {
  const { busyPoll = DEFAULT_BUSY_POLL, offload = true } = settings;
  const headerSize = offload ? VNET_HEADER_SIZE : 0;
  return assembleCable(async (finallyDo) => {
    const program = cReference('tap-link');
    const namespaces = [Netns.create(), Netns.create()] as const;
    for (const netns of namespaces) finallyDo(() => netns.close());
    const taps = namespaces.map((netns, index) =>
      netns.run(() => {
        const tap = openTap(TAP, { vnetHeader: offload });
        finallyDo(() => tap.close());
        if (offload) tap.setOffload(OFFLOADS);
        setInterface(TAP, { up: true });
        addAddress(TAP, `10.69.0.${index + 1}/24`);
        return tap;
      }),
    );
    const start = (mtu: number) => {
      for (const netns of namespaces) netns.run(() => setInterface(TAP, { mtu }));
      return startEnds(program, taps, [OUTPUT_SECTION_SIZE, mtu, busyPoll, headerSize]);
    };
    const isThere = (line: string) => line === 'ready';
    return await twoEndCable({ name, namespaces, address: '10.69.0.2', start, isThere }, finallyDo);
  });
}

/** Both ends, on fresh memory and doorbells, of which they have descriptors of their own. */
function startEnds(program: string, taps: readonly Tap[], settings: readonly number[]): Carrier[] {
  const memory = createMemfd('ivshmem-bench', 2 * OUTPUT_SECTION_SIZE);
  const doorbells = [createEventFd(), createEventFd()] as const;
  try {
    return taps.map((tap, id) => {
      const argv = [id, ...settings].map(String);
      const fds = [memory, doorbells[id as 0 | 1], doorbells[(1 - id) as 0 | 1], tap.fd];
      return startCarrier([program, ...argv], { fds });
    });
  } finally {
    for (const fd of [memory, ...doorbells]) closeFd(fd);
  }
}
