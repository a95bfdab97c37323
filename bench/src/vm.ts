import type { Guest } from '@ivshmem/vm/guest';
import { framesOf, ping, tcpRate, trappedAccesses } from '@ivshmem/vm/measure';
import { guestProgram, isCarrierOn, VmRig } from '@ivshmem/vm/rig';
import { vmSoftware } from '@ivshmem/vm/software';
import { alternate, type Reading } from './alternate.ts';
import type { Part, PartOptions } from './part.ts';

const PINGS = 100;
const BYTES = 16 << 20;

/** A way from the first guest to the second one. */
interface Way {
  readonly name: string;
  /** Of the second guest. */
  readonly address: string;
  /** Arguments of `ivshmem net` in both guests; null if it has no part in it. */
  readonly net: readonly string[] | null;
}

const MTU = ['--mtu', '16384'];
const IVSHMEM: Way = { name: 'ivshmem', address: '10.77.0.2', net: MTU };
const LONG_BUSY_POLL: Way = {
  ...IVSHMEM,
  name: 'ivshmem, --busy-poll 2000',
  net: [...MTU, '--busy-poll', '2000'],
};
const VIRTIO: Way = { name: 'virtio-net, -netdev stream', address: '10.79.0.2', net: null };

async function roundTrips(rig: VmRig, { address }: Way): Promise<Reading[]> {
  const { p50, p99 } = await ping(rig.guests[0]!, address, PINGS);
  return [
    { what: 'ping, p50', unit: 'ms', value: p50 },
    { what: 'ping, p99', unit: 'ms', value: p99 },
  ];
}

async function throughput(rig: VmRig, { address }: Way): Promise<Reading> {
  const [a, b] = rig.guests as [Guest, Guest];
  return { what: 'TCP', unit: 'MB/s', value: (await tcpRate(a, b, address, BYTES)) / 1e6 };
}

/** Over the device: also how often the guests had to be left for it, for QEMU and the device's process. */
async function measureLink(rig: VmRig, way: Way, options: readonly string[]): Promise<Reading[]> {
  const links = [rig.startLink(0, ...options), rig.startLink(1, ...options)];
  await Promise.all(links.map(({ output }) => output.wait('carrier', isCarrierOn)));
  const trips = await roundTrips(rig, way);
  const frames = await framesOf(rig.guests[0]!, 'ivn0');
  const accesses = () => rig.devices.reduce((sum, device) => sum + trappedAccesses(device), 0);
  const before = accesses();
  const rate = await throughput(rig, way);
  const trapped = accesses() - before;
  const carried = (await framesOf(rig.guests[0]!, 'ivn0')) - frames;
  for (const link of links) {
    await link.kill('TERM');
    await link.exited;
  }
  return [
    ...trips,
    rate,
    {
      what: 'trapped accesses in 1000 frames of TCP',
      unit: 'both guests',
      value: (1000 * trapped) / carried,
    },
    { what: 'trapped accesses in a MB of TCP', unit: 'both guests', value: (1e6 * trapped) / BYTES },
  ];
}

async function measureWay(rig: VmRig, way: Way): Promise<Reading[]> {
  if (way.net !== null) return await measureLink(rig, way, way.net);
  return [...(await roundTrips(rig, way)), await throughput(rig, way)];
}

/** Of a program in a guest that does nothing else. */
async function doorbell(rig: VmRig): Promise<Reading[]> {
  const output = await rig.guests[0]!.run(guestProgram('vm/dist/guest/doorbell.js'));
  return [{ what: 'a write to the doorbell', unit: 'µs', value: JSON.parse(output).median }];
}

async function run(options: PartOptions): Promise<void> {
  const { signal } = options;
  const rig = await VmRig.start({ guests: 2, networkCards: true }, console.log);
  // Pending operations on a guest end with it.
  const close = () => rig.close();
  signal.addEventListener('abort', close, { once: true });
  try {
    signal.throwIfAborted();
    for (const [n, guest] of rig.guests.entries()) {
      await guest.run(`ip addr add 10.79.0.${n + 1}/24 dev eth0; ip link set eth0 up`);
    }
    const ways = [IVSHMEM, LONG_BUSY_POLL, VIRTIO];
    const link = (way: Way) => measureWay(rig, way);
    await alternate({ title: 'ping and TCP', subjects: ways, measure: link }, options);
    const doorbells = () => doorbell(rig);
    await alternate({ title: 'doorbell', subjects: [IVSHMEM], measure: doorbells }, options);
  } finally {
    signal.removeEventListener('abort', close);
    await rig.close();
  }
}

/** Two guests under stock QEMU, each with an ivshmem v2 device and a network card. */
export const vm: Part = {
  name: 'vm',
  title: 'Virtual machines',
  missing() {
    try {
      vmSoftware(console.log);
      return null;
    } catch (error) {
      return (error as Error).message;
    }
  },
  settings: { pings: PINGS, tcpBytes: BYTES },
  run,
};
