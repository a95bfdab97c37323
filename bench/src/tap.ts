import { Netns, setInterface, TAP_MAX_MTU } from '@ivshmem/linux';
import { createLink } from '@ivshmem/net';
import { connectByVeth, percentile, ping, tcpTransfer, udpTransfer } from '@ivshmem/traffic';
import { Loopback } from '@ivshmem/transport';
import { filter, firstValueFrom } from 'rxjs';
import { type Figure, ratios, show, summarise } from './statistics.ts';

const MTUS = [1500, 9000, 16384, TAP_MAX_MTU] as const;
const OUTPUT_SECTION = 0x400000;
const TCP_SECONDS = 2;
const UDP_SECONDS = 1;
const PINGS = 1000;

/** Two network namespaces and what connects them; the second one has the address `to`. */
interface Cable {
  readonly from: Netns;
  readonly to: Netns;
  readonly address: string;
  setMtu(mtu: number): Promise<void>;
  close(): Promise<void>;
}

/** The link: two workers in this process, a TAP in each namespace. */
async function ivshmemCable(busyPoll: number): Promise<Cable> {
  const namespaces = [Netns.create(), Netns.create()] as const;
  const loopback = new Loopback({ outputSize: OUTPUT_SECTION });
  const connect = (mtu: number) =>
    Promise.all(
      namespaces.map(async (netns, index) => {
        const link = await createLink({
          port: { type: 'loopback', end: loopback.ends[index]! },
          tap: 'ivn0',
          netns: netns.path,
          addresses: [`10.64.0.${index + 1}/24`],
          mtu,
          busyPoll,
        });
        await firstValueFrom(link.state$.pipe(filter(({ carrier }) => carrier)));
        return link;
      }),
    );
  let links = await connect(MTUS[0]);
  const disconnect = () => Promise.all(links.map((link) => link.close()));
  return {
    from: namespaces[0],
    to: namespaces[1],
    address: '10.64.0.2',
    async setMtu(mtu) {
      await disconnect();
      links = await connect(mtu);
    },
    async close() {
      await disconnect();
      loopback.close();
      for (const netns of namespaces) netns.close();
    },
  };
}

/** What is compared with: a veth pair, which passes frames by reference and TCP segments of 64 KiB whole. */
function vethCable(): Cable {
  const namespaces = [Netns.create(), Netns.create()] as const;
  connectByVeth(...namespaces, { addresses: [['10.65.0.1/24'], ['10.65.0.2/24']] });
  return {
    from: namespaces[0],
    to: namespaces[1],
    address: '10.65.0.2',
    async setMtu(mtu) {
      for (const netns of namespaces) netns.run(() => setInterface('veth0', { mtu }));
    },
    async close() {
      for (const netns of namespaces) netns.close();
    },
  };
}

type Measurement = (cable: Cable) => Promise<number>;

const roundTrip =
  (p: number): Measurement =>
  async ({ from, address }) => {
    const { rttsMicroseconds } = await ping({ netns: from.path, to: address, count: PINGS });
    return percentile(rttsMicroseconds, p);
  };

const udpFrames =
  (size: number): Measurement =>
  async ({ from, to, address }) => {
    const seconds = UDP_SECONDS;
    const result = await udpTransfer({ from: from.path, to: to.path, address, size, seconds });
    return result.received / result.seconds / 1000;
  };

const tcp: Measurement = async ({ from, to, address }) => {
  const result = await tcpTransfer({ from: from.path, to: to.path, address, seconds: TCP_SECONDS });
  return result.bitsPerSecond / 1e9;
};

/** TAP to TAP beside a veth pair, in alternating rounds. Prints both and the ratio, round by round. */
export async function benchTap(rounds: number, busyPoll: number): Promise<Record<string, Figure>> {
  const spin = busyPoll > 0 ? `, busy-poll ${busyPoll} µs` : '';
  console.log(`TAP to TAP${spin}, beside a veth pair: median (minimum to maximum) of ${rounds} rounds`);
  const results: Record<string, Figure> = {};
  const ours = await ivshmemCable(busyPoll);
  const veth = vethCable();
  const compare = async (name: string, unit: string, measure: Measurement) => {
    const a: number[] = [];
    const b: number[] = [];
    for (let round = 0; round < rounds; round++) {
      a.push(await measure(ours));
      b.push(await measure(veth));
    }
    results[`${name}, ${unit}`] = summarise(a);
    results[`${name}, ${unit}, veth`] = summarise(b);
    results[`${name}, ratio`] = ratios(a, b);
    console.log(
      `  ${name.padEnd(26)} ${show(summarise(a)).padEnd(28)} veth ${show(summarise(b)).padEnd(28)} ratio ${show(ratios(a, b))}   ${unit}`,
    );
  };
  try {
    await compare('ping, p50', 'µs', roundTrip(50));
    await compare('ping, p99', 'µs', roundTrip(99));
    await compare('UDP, 64-byte frames', 'thousand/s', udpFrames(64 - 42));
    await compare('UDP, 1514-byte frames', 'thousand/s', udpFrames(1514 - 42));
    for (const mtu of MTUS) {
      await ours.setMtu(mtu);
      await veth.setMtu(mtu);
      await compare(`TCP, MTU ${mtu}`, 'Gbit/s', tcp);
    }
  } finally {
    await ours.close();
    await veth.close();
  }
  return results;
}
