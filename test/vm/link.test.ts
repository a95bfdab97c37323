import type { Device, DeviceState } from '@ivshmem/device';
import { startCapture } from '@ivshmem/net/capture';
import { filter, firstValueFrom } from 'rxjs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { parsePcapng } from '../../packages/net/src/capture/pcapng.test-support.ts';
import { describeVm } from './requirements.ts';
import type { Job } from './src/guest.ts';
import { isCarrierOff, isCarrierOn, VmRig } from './src/rig.ts';
import { receive, send, transfer } from './src/transfer.ts';

// Ethernet from guest to guest, each with an ivshmem v2 device under stock QEMU.

const MiB = 2 ** 20;
/** A link must be up again so soon after both ends are there, in ms. */
const RECOVERY = 5000;

let rig: VmRig;
const links: Job[] = [];

/** Starts a link's end in a guest, and resolves when both ends see the carrier. */
async function linkUp(n: 0 | 1, ...more: string[]): Promise<void> {
  const other = links[1 - n];
  const from = other?.output.all.length;
  links[n] = rig.startLink(n, ...more);
  await links[n].output.wait('carrier', isCarrierOn);
  await other?.output.wait('carrier', isCarrierOn, from);
}

const inState = (device: Device, state: DeviceState) =>
  firstValueFrom(device.state$.pipe(filter((now) => now === state)));

/** Resolves when a ping from guest 0 to guest 1 is answered: the kernel may take a second to believe a carrier. */
async function reachable(): Promise<void> {
  await rig.guests[0]!.run('until ping -c 1 -W 1 10.77.0.2; do true; done');
}

/** Starts the link's end in guest 1 again, and checks how soon frames are exchanged. */
async function expectRecovery(): Promise<void> {
  links[1] = rig.startLink(1);
  await links[1].output.wait('start', ({ event }) => event === 'up');
  const start = performance.now();
  await reachable();
  expect(performance.now() - start).toBeLessThan(RECOVERY);
}

async function expectTraffic(): Promise<void> {
  const [a, b] = rig.guests;
  await reachable();
  expect(await a!.run('ping -c 5 -i 0.1 -W 5 10.77.0.2')).toContain(' 0% packet loss');
  for (const [from, to, address] of [
    [a!, b!, '10.77.0.2'],
    [b!, a!, '10.77.0.1'],
  ] as const) {
    const { sent, received } = await transfer(from, to, address, 4 * MiB);
    expect(received).toBe(sent);
  }
}

/** Starts to send without an end from guest 0 to guest 1; resolves when a good part has arrived. */
async function endlessTransfer(): Promise<void> {
  const receiver = await receive(rig.guests[1]!, 'dd bs=64k of=/tmp/received 2> /dev/null');
  send(rig.guests[0]!, 'cat /dev/zero', '10.77.0.2');
  await rig.guests[1]!.run('until [ $(stat -c %s /tmp/received) -gt 1000000 ]; do sleep 0.05; done');
  receiver.exited.catch(() => {});
}

beforeAll(async () => {
  rig = await VmRig.start({ guests: 2 });
  links[0] = rig.startLink(0);
  await linkUp(1);
});
afterAll(() => rig?.close());

describeVm('a link between two guests', () => {
  it('carries ping, and TCP both ways, with the same checksum at both ends', async () => {
    expect(links.map(({ output }) => output.all[0])).toMatchObject([
      { event: 'up', id: 0, mtu: 16384, vectors: 2 },
      { event: 'up', id: 1, mtu: 16384, vectors: 2 },
    ]);
    await expectTraffic();
  });

  it('is seen by a capture on the host, which has no interface of it', async () => {
    const { memory, doorbells } = rig.observe();
    await using capture = await startCapture({ memory, maxPeers: 2, outputSectionSize: MiB, link: 'guests' });
    capture.setDoorbells(doorbells);
    const file = (async () => {
      const chunks: Uint8Array[] = [];
      for await (const chunk of capture.bytes()) chunks.push(chunk);
      return parsePcapng(Buffer.concat(chunks));
    })();
    expect(await rig.guests[0]!.run('ping -c 20 -i 0.05 -W 5 10.77.0.2')).toContain(' 0% packet loss');
    await capture.close();
    const { packets } = await file;
    const pings = (type: number) =>
      packets.filter(
        ({ bytes }) => bytes.readUInt16BE(12) === 0x0800 && bytes[23] === 1 && bytes[34] === type,
      );
    expect([pings(8).length, pings(0).length]).toEqual([20, 20]);
    expect(new Set(pings(8).map(({ interfaceId }) => interfaceId))).toEqual(new Set([0]));
    expect(new Set(pings(0).map(({ interfaceId }) => interfaceId))).toEqual(new Set([1]));
    expect(capture.counters().map(({ missed, invalid }) => [missed, invalid])).toEqual([
      [0, 0],
      [0, 0],
    ]);
  });

  it('also works if one end polls', async () => {
    const from = links[0]!.output.all.length;
    await links[1]!.kill('TERM');
    expect(await links[1]!.exited).toBe(0);
    await links[0]!.output.wait('loss of the carrier', isCarrierOff, from);
    await linkUp(1, '--irq', 'poll');
    await expectTraffic();
    await links[1]!.kill('TERM');
    expect(await links[1]!.exited).toBe(0);
    await linkUp(1);
  });

  it('is back within 5 s after a guest was reset in the middle of a transfer', async () => {
    await endlessTransfer();
    const from = links[0]!.output.all.length;
    await rig.guests[1]!.reboot();
    await links[0]!.output.wait('loss of the carrier', isCarrierOff, from);
    await rig.guests[0]!.run('killall nc; true');

    await expectRecovery();
    await expectTraffic();
  });

  it('is down within 5 s after a QEMU was killed, and back with the next one', async () => {
    await endlessTransfer();
    const from = links[0]!.output.all.length;
    const start = performance.now();
    await rig.guests[1]!.stop();
    await links[0]!.output.wait('loss of the carrier', isCarrierOff, from);
    expect(performance.now() - start).toBeLessThan(RECOVERY);
    await rig.guests[0]!.run('killall nc; true');

    await rig.startGuest(1);
    await expectRecovery();
    await expectTraffic();
  });

  it('goes on without the host server; guests that start later are linked by the next server', async () => {
    rig.stopServer();
    await Promise.all(rig.devices.map((device) => inState(device, 'orphaned')));
    await expectTraffic();
    rig.startServer();
    await expectTraffic();

    await Promise.all(rig.guests.map((guest) => guest.stop()));
    await Promise.all(rig.devices.map((device) => inState(device, 'waiting')));
    await Promise.all([rig.startGuest(0), rig.startGuest(1)]);
    links.length = 0;
    links[0] = rig.startLink(0);
    await linkUp(1);
    await expectTraffic();
  });
});
