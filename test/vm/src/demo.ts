import { createLink } from '@ivshmem/net';
import { filter, firstValueFrom } from 'rxjs';
import type { Guest, Job } from './guest.ts';
import { framesOf, type PingTimes, ping, tcpRate, trappedAccesses } from './measure.ts';
import { accelerator } from './qemu.ts';
import { guestProgram, isCarrierOn, startLink, VmRig } from './rig.ts';
import { vmSoftware } from './software.ts';
import { transfer } from './transfer.ts';

// Two Debian guests under stock QEMU, linked by ivshmem v2 devices; then one guest and a TAP on the host; then two guests
// with network cards, for comparison. Takes some minutes without KVM, and leaves nothing behind.

const MiB = 2 ** 20;
const PINGS = 100;
const BYTES = 16 * MiB;
/** Of each link, in bytes. */
const MTU = 16384;
const MTU_OPTION = ['--mtu', String(MTU)];
const HOST_TAP = `ivdemo${process.pid % 100_000}`;
/** A small network of its own (RFC 2544: for measurements). */
const HOST_ADDRESS = '198.18.77.1';
const GUEST_ADDRESS = '198.18.77.2';
const TERMINATED = 143;

const begin = performance.now();
const rows: [string, string][] = [];
const running = new Set<{ close(): Promise<unknown> }>();

function say(text: string): void {
  process.stdout.write(`${((performance.now() - begin) / 1000).toFixed(0).padStart(4)} s  ${text}\n`);
}

/** Has what `part` uses closed after it, and when the demonstration is ended before its time. */
async function using<T extends { close(): Promise<unknown> }>(
  thing: T,
  part: (thing: T) => Promise<void>,
): Promise<void> {
  running.add(thing);
  try {
    await part(thing);
  } finally {
    running.delete(thing);
    await thing.close();
  }
}

const pingText = ({ p50, p99, sent, received }: PingTimes) =>
  `${p50.toFixed(2)} ms (p50), ${p99.toFixed(2)} ms (p99), ${sent - received} of ${sent} lost`;
const rateText = (rate: number) => `${(rate / 1e6).toFixed(1)} MB/s`;

async function stopLink(link: Job): Promise<void> {
  await link.kill('TERM');
  await link.exited;
}

async function guestToGuest(rig: VmRig): Promise<void> {
  const [a, b] = rig.guests as [Guest, Guest];
  const links = [rig.startLink(0, ...MTU_OPTION), rig.startLink(1, ...MTU_OPTION)];
  const start = performance.now();
  await Promise.all(links.map(({ output }) => output.wait('carrier', isCarrierOn)));
  say(`ivshmem net --pci auto in both: link up ${(performance.now() - start).toFixed(0)} ms later`);
  rows.push(['guest to guest, ping', pingText(await ping(a, '10.77.0.2', PINGS))]);
  say('TCP with a checksum of what was sent and what has arrived');
  const { sent, received } = await transfer(a, b, '10.77.0.2', MiB);
  if (sent !== received) throw new Error('the checksums differ');
  const count = async () => ({
    frames: await framesOf(a, 'ivn0'),
    trapped: rig.devices.reduce((sum, device) => sum + trappedAccesses(device), 0),
  });
  const before = await count();
  const rate = await tcpRate(a, b, '10.77.0.2', BYTES);
  const after = await count();
  const share = (after.trapped - before.trapped) / (after.frames - before.frames);
  rows.push(['guest to guest, TCP', `${rateText(rate)}, MTU ${links[0]!.output.all[0].mtu}`]);
  rows.push(['trapped accesses', `${(share * 1000).toFixed(0)} per 1000 frames of TCP, of both guests`]);
  await Promise.all(links.map(stopLink));
  const { median } = JSON.parse(await a.run(guestProgram('vm/dist/guest/doorbell.js')));
  rows.push(['a write to the doorbell', `${median.toFixed(1)} µs (median)`]);
}

async function guestToHost(rig: VmRig): Promise<void> {
  const link = await createLink({
    port: { type: 'server', socketPath: rig.socket },
    tap: HOST_TAP,
    mtu: MTU,
    addresses: [`${HOST_ADDRESS}/30`],
  });
  await using(link, async () => {
    const inside = startLink(rig.guests[0]!, `${GUEST_ADDRESS}/30`, ...MTU_OPTION);
    await firstValueFrom(link.state$.pipe(filter(({ carrier }) => carrier)));
    say(`link up between the guest and ${HOST_TAP} on the host`);
    rows.push(['guest to host, ping', pingText(await ping(rig.guests[0]!, HOST_ADDRESS, PINGS))]);
    await stopLink(inside);
  });
}

async function networkCards(rig: VmRig): Promise<void> {
  const [a, b] = rig.guests as [Guest, Guest];
  for (const [n, guest] of rig.guests.entries()) {
    await guest.run(`ip addr add 10.79.0.${n + 1}/24 dev eth0; ip link set eth0 up`);
  }
  rows.push(['virtio-net, ping', pingText(await ping(a, '10.79.0.2', PINGS))]);
  rows.push([
    'virtio-net, TCP',
    `${rateText(await tcpRate(a, b, '10.79.0.2', BYTES))}, MTU 1500, segments of 64 KiB`,
  ]);
}

async function main(): Promise<void> {
  vmSoftware(say);
  say(
    `two guests, ${accelerator().toUpperCase()}, each with an ivshmem v2 device, and a network card to compare with`,
  );
  const rig = await VmRig.start({ guests: 2, networkCards: true }, say);
  await using(rig, async () => {
    await guestToGuest(rig);
    say('the same guests, by virtio-net cards that a Unix socket joins (-netdev stream)');
    await networkCards(rig);
  });
  say('one guest, and a TAP on the host');
  await using(await VmRig.start({ guests: 1 }, say), guestToHost);
  const width = Math.max(...rows.map(([name]) => name.length));
  process.stdout.write(`\n${rows.map(([name, value]) => `  ${name.padEnd(width)}   ${value}\n`).join('')}`);
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, async () => {
    await Promise.all([...running].map((thing) => thing.close()));
    process.exit(TERMINATED);
  });
}
try {
  await main();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
