import { readFileSync } from 'node:fs';
import { SystemCallError } from '@ivshmem/linux';
import {
  addAddress,
  createBridge,
  createNamedNetns,
  deleteNamedNetns,
  getInterface,
  setInterface,
  waitForInterface,
} from '@ivshmem/linux/network';
import { ping, tcpTransfer, udpTransfer } from '@ivshmem/traffic';
import { expect, it } from 'vitest';
import { expectDelivery, interfaceDrops, numberedFrame } from './support/frames.ts';
import { describeNetwork } from './support/requirements.ts';
import { type End, Rig, TAP } from './support/rig.ts';

const DIRECTIONS = [
  [0, 1],
  [1, 0],
] as const;

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

describeNetwork('IP over a link', () => {
  it.each([1, 2, 64])('of %i vectors: ARP, ping, TCP and UDP, both ways', async (vectors) => {
    await using rig = await Rig.up({ vectors });
    const [a, b] = rig.namespaces;
    for (const [from, to] of DIRECTIONS) {
      for (const address of [`10.64.0.${to + 1}`, `fd64::${to + 1}`]) {
        const netns = rig.namespaces[from].path;
        const run = { from: netns, to: rig.namespaces[to].path, address, verify: true };
        expect(await ping({ netns, to: address, count: 100, timeoutMs: 5000 })).toMatchObject({
          sent: 100,
          received: 100,
          lost: 0,
        });
        expect(await tcpTransfer({ ...run, bytes: 16 << 20 })).toMatchObject({
          bytes: 16 << 20,
          checksumOk: true,
        });
        // As many as the receiver's socket holds, so that none can be lost; then more than it may hold.
        const intact = { reordered: 0, duplicates: 0, corrupted: 0 };
        const few = await udpTransfer({ ...run, size: 1000, count: 80 });
        expect(few).toMatchObject({ sent: 80, received: 80, ...intact });
        const many = await udpTransfer({ ...run, size: 1000, count: 5000 });
        expect(many).toMatchObject({ sent: 5000, ...intact });
        expect(many.received).toBeGreaterThan(80);
      }
    }
    const mac = b.run(() => getInterface(TAP)!.mac);
    const arp = a.run(() => readFileSync('/proc/thread-self/net/arp', 'utf8'));
    expect(arp).toMatch(new RegExp(`^10\\.64\\.0\\.2 +0x1 +0x2 +${mac} .* ${TAP}$`, 'm'));
  });

  it('from a bridge', async () => {
    await using rig = new Rig({ silent: true });
    rig.inside(0, () => {
      createBridge('br0');
      setInterface('br0', { up: true });
      addAddress('br0', '10.64.0.1/24');
    });
    await rig.startServer();
    rig.startPeer(0, ['--bridge', 'br0']);
    rig.startPeer(1, ['--address', '10.64.0.2/24']);
    await rig.bothUp();
    expect(rig.inside(0, () => getInterface(TAP))).toMatchObject({ master: 'br0', up: true });
    rig.inside(0, () => waitForInterface('br0', (found) => found?.operState === 'up'));
    const result = await ping({ netns: rig.namespaces[1].path, to: '10.64.0.1', count: 20, timeoutMs: 5000 });
    expect(result.lost).toBe(0);
  });
});

describeNetwork('the interface of a link', () => {
  it('has the given address, MTU and namespace, and its carrier follows the handshake', async () => {
    const name = `ivshmem-test-${process.pid}`;
    using named = createNamedNetns(name);
    try {
      await using rig = new Rig();
      await rig.startServer();
      const first = rig.startPeer(0, ['--netns', name, '--mac', '02:00:00:00:00:aa', '--mtu', '1400']);
      await first.line(({ event }) => event === 'up');
      const seen = () => named.run(() => getInterface(TAP));
      expect(seen()).toMatchObject({
        mac: '02:00:00:00:00:aa',
        mtu: 1400,
        up: true,
        carrier: false,
        kind: 'tun',
      });
      rig.startPeer(1);
      await rig.bothUp();
      expect(seen()).toMatchObject({ carrier: true });
      named.run(() => waitForInterface(TAP, (found) => found?.operState === 'up'));
      expect(rig.inside(1, () => getInterface(TAP))).toMatchObject({ carrier: true });
      await rig.stopPeer(1);
      expect(rig.inside(1, () => getInterface(TAP))).toBeNull();
      named.run(() => waitForInterface(TAP, (found) => found?.carrier === false));
      await rig.stopPeer(0);
      expect(seen()).toBeNull();
    } finally {
      deleteNamedNetns(name);
    }
  });
});

describeNetwork('frames', () => {
  it('of every size from 14 bytes to MTU + 18 arrive once, unchanged, in order', async () => {
    const mtu = 1500;
    await using rig = await Rig.up({ mtu, silent: true });
    using a = rig.packetSocket(0);
    using b = rig.packetSocket(1);
    const plain = range(14, mtu + 14).map((size) => numberedFrame(size, size));
    // The receiving kernel takes the tag out, and wants two bytes behind the inner ethertype for that.
    const tagged = range(20, mtu + 18).map((size) => numberedFrame(size, size, true));
    expectDelivery(a, b, [...plain, ...tagged]);
    expectDelivery(b, a, [...tagged.reverse(), ...plain.reverse()]);
    const count = plain.length + tagged.length;
    for (const end of [0, 1] as const) {
      expect(await rig.stopPeer(end)).toMatchObject({
        txFrames: count,
        rxFrames: count,
        dropsOversize: 0,
        dropsRefused: 0,
        dropsRunt: 0,
        violations: 0,
      });
    }
  });

  // The golden table of the protocol page: section, queue length, default MTU, largest MTU (of a TAP).
  it.each([
    [0x1000, 32, 144, 576],
    [0x2000, 32, 400, 1600],
    [0x4000, 64, 912, 3648],
    [0x10000, 256, 3672, 14688],
    [0x7f000, 2048, 16384, 65521],
    [0x100000, 4096, 16384, 65521],
    [0x400000, 4096, 16384, 65521],
  ])('cross output sections of %i bytes, with the default and with the largest MTU', async (...row) => {
    const [outputSectionSize, queueLength, defaultMtu, maxMtu] = row;
    for (const mtu of [undefined, maxMtu]) {
      await using rig = await Rig.up({ outputSectionSize, silent: true, ...(mtu !== undefined && { mtu }) });
      const effective = mtu ?? defaultMtu;
      expect(rig.peers[0]!.lines[0]).toMatchObject({
        event: 'up',
        outputSectionSize,
        queueLength,
        mtu: effective,
      });
      using a = rig.packetSocket(0);
      using b = rig.packetSocket(1);
      const longest = effective + 14;
      const sizes = [14, 15, 60, 63, 64, 65, 127, 128, 129, longest - 1, longest, 14, longest, longest];
      const some = range(1, 60).map((i) => 14 + ((i * 7919) % (effective + 1)));
      const frames = [...sizes, ...some].map((size, number) => numberedFrame(size, number));
      // A TAP takes 65535 bytes at most.
      const tagged = range(longest + 1, Math.min(longest + 4, 65535));
      frames.push(...tagged.map((size, number) => numberedFrame(size, number, true)));
      expectDelivery(a, b, frames);
      expectDelivery(b, a, frames);
    }
  });

  it('longer than the sections allow are dropped and counted, and nothing else is', async () => {
    await using rig = await Rig.up({ mtu: 1500, outputSectionSize: 0x2000, silent: true });
    const mtu = 1600;
    // An administrator changes the MTU to more than the link can follow, which the link says.
    const { marks } = rig;
    rig.inside(0, () => setInterface(TAP, { mtu: 9000 }));
    const line = await rig.peers[0]!.line(({ event }) => event === 'log', marks[0]);
    expect(line.text).toMatch(/^MTU 9000 .* allow 1600; longer frames are dropped$/);
    // The peer has to learn of it.
    await rig.bothUp(marks);
    using a = rig.packetSocket(0);
    using b = rig.packetSocket(1);
    const long = [mtu + 23, 2000, 9014].map((size) => numberedFrame(size, size));
    const fitting = [mtu + 15, mtu + 22, 60].map((size) => numberedFrame(size, size));
    for (const frame of long) a.send(frame);
    expectDelivery(a, b, fitting);
    for (const frame of long) a.send(frame);
    expectDelivery(a, b, fitting);
    expect(await rig.stopPeer(0)).toMatchObject({ dropsOversize: 6, txFrames: 6 });
    expect(await rig.stopPeer(1)).toMatchObject({ rxFrames: 6, dropsRefused: 0 });
  });

  it.each([
    [0x1000, 32],
    [0x4000, 64],
  ])('in bursts beyond what sections of %i bytes hold all arrive', async (outputSectionSize, queueLength) => {
    await using rig = await Rig.up({ outputSectionSize, silent: true });
    expect(rig.peers[0]!.lines[0]).toMatchObject({ queueLength });
    using a = rig.packetSocket(0);
    using b = rig.packetSocket(1);
    for (let round = 0; round < 20; round++) {
      const frames = range(1, 200).map((i) => numberedFrame(60 + ((i * 13) % 90), round * 200 + i));
      for (const frame of frames) {
        a.send(frame);
        b.send(frame);
      }
      for (const socket of [a, b]) {
        for (const frame of frames) expect(frame.equals(socket.receive(5000) ?? Buffer.of())).toBe(true);
        expect(socket.takeDrops()).toBe(0);
      }
    }
  });

  it.each([
    [0x1000, 32],
    [0x4000, 64],
  ])('that overrun sections of %i bytes arrive or are counted', async (outputSectionSize, queueLength) => {
    await using rig = await Rig.up({ outputSectionSize, silent: true });
    expect(rig.peers[0]!.lines[0]).toMatchObject({ queueLength });
    const sockets = [rig.packetSocket(0), rig.packetSocket(1)] as const;
    const sent = [0, 0];
    const arrived = [0, 0];
    const last = [-1, -1];
    const collect = (end: End, timeout: number) => {
      for (let frame = sockets[end].receive(timeout); frame !== null; frame = sockets[end].receive(timeout)) {
        const number = Buffer.from(frame).readUInt32LE(14);
        expect(numberedFrame(frame.length, number).equals(frame)).toBe(true);
        expect(number).toBeGreaterThan(last[end]!);
        last[end] = number;
        arrived[end]!++;
      }
    };
    for (let number = 0; number < 20_000; number++) {
      for (const end of [0, 1] as const) {
        try {
          sockets[end].send(numberedFrame(60 + (number % 80), number));
          sent[end]!++;
        } catch (error) {
          // The interface's queue is full, and the kernel says so.
          if (!(error instanceof SystemCallError) || error.code !== 'ENOBUFS') throw error;
        }
      }
      if (number % 1000 === 999) for (const end of [0, 1] as const) collect(end, 0);
    }
    for (const end of [0, 1] as const) collect(end, 300);
    for (const [from, to] of DIRECTIONS) {
      const dropped =
        rig.inside(from, () => interfaceDrops(TAP)).sent +
        rig.inside(to, () => interfaceDrops(TAP)).received +
        sockets[to].takeDrops();
      expect(arrived[to]! + dropped).toBe(sent[from]);
      expect(arrived[to]).toBeGreaterThan(queueLength);
    }
    for (const socket of sockets) socket.close();
    for (const end of [0, 1] as const) {
      const stats = await rig.stopPeer(end);
      expect(stats).toMatchObject({ dropsOversize: 0, dropsRefused: 0, violations: 0 });
      expect(stats.ringFull).toBeGreaterThan(0);
    }
  });
});
