import { missingNetworkPrivilege, TAP_MAX_MTU } from '@ivshmem/linux';
import { tcpTransfer, udpTransfer } from '@ivshmem/traffic';
import { alternate, type Reading } from './alternate.ts';
import { type Cable, withCables, withMtu } from './cable.ts';
import { inC, ours, socat, vde, veth } from './cables/kinds.ts';
import { congestionControl, setCongestionControl } from './congestion-control.ts';
import type { Part, PartOptions } from './part.ts';
import type { Measurement } from './results.ts';

const MTUS = [1500, 9000, 16384, TAP_MAX_MTU];
/** UDP payloads and headers: of the frame with Ethernet header, in bytes. */
const UDP_FRAMES = [64, 1514];
const UDP_HEADERS = 42;
const TCP_SECONDS = 1.5;
const UDP_SECONDS = 1;
/** The kernel's default, where the machine has another one. */
const CUBIC = 'cubic';

const KINDS = [
  ours(),
  ours('ivshmem, no offload', { offload: false }),
  inC(),
  inC('C, no offload', { offload: false }),
  veth,
  vde,
  socat,
];

const udp =
  (size: number, signal: AbortSignal) =>
  async ({ from, to, address }: Cable): Promise<Reading[]> => {
    const payload = size - UDP_HEADERS;
    const run = { from: from.path, to: to.path, address, size: payload, seconds: UDP_SECONDS, signal };
    const { received, seconds } = await udpTransfer(run);
    return [{ what: `UDP, ${size}-byte frames`, unit: 'thousand/s', value: received / seconds / 1000 }];
  };

const tcp =
  (mtu: number, control: string, signal: AbortSignal) =>
  async ({ from, to, address }: Cable): Promise<Reading[]> => {
    for (const netns of [from, to]) setCongestionControl(netns, control);
    const run = { from: from.path, to: to.path, address, seconds: TCP_SECONDS, signal };
    const { bitsPerSecond } = await tcpTransfer(run);
    return [{ what: `TCP (${control}), MTU ${mtu}`, unit: 'Gbit/s', value: bitsPerSecond / 1e9 }];
  };

async function run({ rounds, signal }: PartOptions): Promise<Measurement[]> {
  const controls = [...new Set([congestionControl(), CUBIC])];
  return await withCables(KINDS, signal, async (cables) => {
    const measurements: Measurement[] = [];
    const compare = async (among: readonly Cable[], measure: (cable: Cable) => Promise<Reading[]>) => {
      measurements.push(...(await alternate(among, rounds, measure)));
    };
    for (const size of UDP_FRAMES) await compare(cables, udp(size, signal));
    for (const mtu of MTUS) {
      const able = await withMtu(cables, mtu);
      for (const control of controls) await compare(able, tcp(mtu, control, signal));
    }
    return measurements;
  });
}

/** From one TAP to another, each end of the link a process, beside what else joins two network namespaces. */
export const tap: Part = {
  name: 'tap',
  title: 'TAP to TAP',
  missing: missingNetworkPrivilege,
  settings: { mtus: MTUS, udpFrames: UDP_FRAMES, udpSeconds: UDP_SECONDS, tcpSeconds: TCP_SECONDS },
  run,
};
