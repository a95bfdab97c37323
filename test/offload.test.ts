import { writeFileSync } from 'node:fs';
import { recv, send } from '@ivshmem/linux';
import { mapPrivate } from '@ivshmem/linux/memory';
import {
  addAddress,
  addRoute,
  createBridge,
  type Netns,
  openIpSocket,
  setInterface,
  waitForInterface,
} from '@ivshmem/linux/network';
import { ping, tcpTransfer } from '@ivshmem/traffic';
import { expect, it } from 'vitest';
import type { Line } from './support/program.ts';
import { describeNetwork } from './support/requirements.ts';
import { type End, isCarrierOn, Rig } from './support/rig.ts';

const MTU = 1500;
const BYTES = 32 << 20;

/** Verified TCP in both directions, over IPv4 and IPv6. */
async function expectTcp(rig: Rig, bytes = BYTES): Promise<void> {
  for (const [from, to] of [
    [0, 1],
    [1, 0],
  ] as const) {
    for (const address of [`10.64.0.${to + 1}`, `fd64::${to + 1}`]) {
      await ping({ netns: rig.namespaces[from].path, to: address, count: 1, timeoutMs: 10_000 });
      const run = { from: rig.namespaces[from].path, to: rig.namespaces[to].path, address, verify: true };
      expect(await tcpTransfer({ ...run, bytes })).toMatchObject({ bytes, checksumOk: true });
    }
  }
}

/** Bytes of the frames that an end has sent, on average, and of all together. */
async function averageFrame(rig: Rig, end: End): Promise<number> {
  const { txFrames, txBytes, dropsHeader, dropsRefused, dropsOversize } = await rig.stopPeer(end);
  expect({ dropsHeader, dropsRefused, dropsOversize }).toEqual({
    dropsHeader: 0,
    dropsRefused: 0,
    dropsOversize: 0,
  });
  return txBytes / txFrames;
}

const offloads = (lines: readonly Line[]) => lines.map((line) => line.offloads.slice(0, 2));

describeNetwork('offloads between two links', () => {
  it('let TCP pass uncut and unsummed, at an MTU of 1500', async () => {
    await using rig = await Rig.up({ mtu: MTU });
    expect(offloads(await rig.bothUp())).toEqual([
      ['checksum', 'tso'],
      ['checksum', 'tso'],
    ]);
    await expectTcp(rig);
    // Half of the frames are acknowledgements.
    expect(await averageFrame(rig, 0)).toBeGreaterThan(2 * MTU);
    expect(await averageFrame(rig, 1)).toBeGreaterThan(2 * MTU);
  });

  it.each([
    ['one of them', ['--no-offload'], []],
    ['both', ['--no-offload'], ['--no-offload']],
  ])('are not there where %s said --no-offload', async (_who, first, second) => {
    await using rig = new Rig({ mtu: MTU });
    await rig.startServer();
    rig.startPeer(0, first);
    rig.startPeer(1, second);
    expect(offloads(await rig.bothUp())).toEqual([[], []]);
    await expectTcp(rig);
    expect(await averageFrame(rig, 0)).toBeLessThan(MTU);
    expect(await averageFrame(rig, 1)).toBeLessThan(MTU);
  });

  it('are checksums alone in small sections', async () => {
    await using rig = await Rig.up({ mtu: MTU, outputSectionSize: 0x10000 });
    expect(offloads(await rig.bothUp())).toEqual([['checksum'], ['checksum']]);
    await expectTcp(rig, 4 << 20);
    expect(await averageFrame(rig, 0)).toBeLessThan(MTU);
  });

  it('are enabled and disabled with the peer, and TCP continues', async () => {
    await using rig = new Rig({ mtu: MTU });
    // The other side does not notice a new address until its neighbour entry has expired.
    const mac = ['--mac', '02:00:00:00:00:02'];
    await rig.startServer();
    rig.startPeer(0);
    rig.startPeer(1, mac);
    await rig.bothUp();
    const stream = new AbortController();
    // Segments wait in the TAP, and are sent again, whenever the peer is away.
    const running = tcpTransfer({
      from: rig.namespaces[0].path,
      to: rig.namespaces[1].path,
      address: '10.64.0.2',
      seconds: 600,
      signal: stream.signal,
    }).catch((error: Error) => error);
    for (const options of [['--no-offload'], [], ['--no-offload'], []]) {
      const from = rig.peers[0]!.lines.length;
      await rig.peers[1]!.stop('SIGKILL');
      rig.startPeer(1, [...mac, ...options]);
      const up = await Promise.all([rig.peers[0]!.line(isCarrierOn, from), rig.peers[1]!.line(isCarrierOn)]);
      const expected = options.length > 0 ? [] : ['checksum', 'tso'];
      expect(offloads(up)).toEqual([expected, expected]);
      await expectTcp(rig, 1 << 20);
    }
    stream.abort();
    await running;
    const { violations, dropsHeader } = await rig.stopPeer(0);
    expect({ violations, dropsHeader }).toEqual({ violations: 0, dropsHeader: 0 });
  });

  it('serve a bridge, too', async () => {
    await using rig = new Rig({ silent: true, mtu: MTU });
    rig.inside(0, () => {
      createBridge('br0');
      setInterface('br0', { up: true });
      addAddress('br0', '10.64.0.1/24');
    });
    await rig.startServer();
    rig.startPeer(0, ['--bridge', 'br0']);
    rig.startPeer(1, ['--address', '10.64.0.2/24']);
    await rig.bothUp();
    rig.inside(0, () => waitForInterface('br0', (found) => found?.operState === 'up'));
    for (const [from, to] of [
      [0, 1],
      [1, 0],
    ] as const) {
      const address = `10.64.0.${to + 1}`;
      await ping({ netns: rig.namespaces[from].path, to: address, count: 1, timeoutMs: 10_000 });
      const run = { from: rig.namespaces[from].path, to: rig.namespaces[to].path, address, verify: true };
      expect(await tcpTransfer({ ...run, bytes: BYTES })).toMatchObject({ bytes: BYTES, checksumOk: true });
    }
  });

  it.each(['bridges', 'routes'])('are undone where the peer %s frames on to a plain link', async (how) => {
    await using near = new Rig({ silent: true, mtu: MTU });
    await using far = new Rig({ silent: true, mtu: MTU });
    const middle = near.namespaces[1];
    const routes = how === 'routes';
    if (!routes) {
      middle.run(() => {
        createBridge('br0');
        setInterface('br0', { up: true });
      });
    }
    const port = (address: string) => (routes ? ['--address', address] : ['--bridge', 'br0']);
    const [from, to] = routes ? ['10.64.1.1', '10.64.2.2'] : ['10.64.0.1', '10.64.0.2'];
    await near.startServer();
    await far.startServer();
    near.startPeer(0, ['--address', `${from}/24`]);
    near.startPeer(1, port('10.64.1.2/24'));
    const onwards = ['--netns', middle.path, '--tap', 'ivn1', '--no-offload'];
    far.startPeer(0, [...onwards, ...port('10.64.2.1/24')]);
    far.startPeer(1, ['--address', `${to}/24`]);
    expect(offloads(await near.bothUp())).toEqual([
      ['checksum', 'tso'],
      ['checksum', 'tso'],
    ]);
    expect(offloads(await far.bothUp())).toEqual([[], []]);
    if (routes) {
      middle.run(() => writeFileSync('/proc/sys/net/ipv4/ip_forward', '1'));
      near.inside(0, () => addRoute({ to: '10.64.2.0/24', via: '10.64.1.2' }));
      far.inside(1, () => addRoute({ to: '10.64.1.0/24', via: '10.64.2.1' }));
    } else {
      middle.run(() => waitForInterface('br0', (found) => found?.operState === 'up'));
    }
    const [a, c] = [near.namespaces[0].path, far.namespaces[1].path];
    await ping({ netns: a, to, count: 1, timeoutMs: 10_000 });
    const there = await tcpTransfer({ from: a, to: c, address: to, verify: true, bytes: BYTES });
    expect(there).toMatchObject({ bytes: BYTES, checksumOk: true });
    const back = await tcpTransfer({ from: c, to: a, address: from, verify: true, bytes: BYTES });
    expect(back).toMatchObject({ bytes: BYTES, checksumOk: true });
    // What was uncut on the first link has been cut, and summed, for the second one.
    expect(await averageFrame(near, 0)).toBeGreaterThan(MTU + 14);
    expect(await averageFrame(far, 0)).toBeLessThan(MTU);
  });

  it('let UDP payloads pass unsegmented if the kernel supports it', async () => {
    await using rig = await Rig.up({ mtu: MTU });
    const [up] = await rig.bothUp();
    const { namespaces } = rig;
    await ping({ netns: namespaces[0].path, to: '10.64.0.2', count: 1, timeoutMs: 10_000 });
    const received = exchangeDatagrams(namespaces[0], namespaces[1]);
    expect(received).toEqual(Array.from({ length: 40 }, () => 1000));
    const { rxFrames, rxBytes } = await rig.stopPeer(1);
    // Not asserted if the kernel is older than 6.2.
    if (up!.offloads.includes('uso')) expect(rxBytes / rxFrames).toBeGreaterThan(2 * MTU);
  });
});

/** One call that sends 40 datagrams of 1000 bytes (UDP_SEGMENT). Returns the sizes of those that arrive. */
function exchangeDatagrams(from: Netns, to: Netns): number[] {
  using memory = mapPrivate(65536);
  using receiver = to.run(() => openIpSocket(2, 'udp', 2000));
  receiver.bind('10.64.0.2', 4000);
  using sender = from.run(() => openIpSocket(2, 'udp', 2000));
  // SOL_UDP, UDP_SEGMENT.
  sender.setOption(17, 103, 1000);
  sender.connect('10.64.0.2', 4000);
  expect(send(sender.fd, memory.address, 40_000, 0)).toBe(40_000);
  return Array.from({ length: 40 }, () => recv(receiver.fd, memory.address, 65536, 0));
}
