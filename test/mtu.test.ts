import { createBridge, getInterface, setInterface } from '@ivshmem/linux/network';
import { ping } from '@ivshmem/traffic';
import { expect, it } from 'vitest';
import { expectDelivery, numberedFrame } from './support/frames.ts';
import { describeNetwork } from './support/requirements.ts';
import { type End, Rig, TAP } from './support/rig.ts';

/** Bytes of an Ethernet header. */
const HEADERS = 14;

function expectInterfaces(rig: Rig, mtu: number): void {
  for (const end of [0, 1] as const) expect(rig.inside(end, () => getInterface(TAP)!.mtu)).toBe(mtu);
}

/** Both ends have this MTU, and echo requests of just that length pass in both directions, in one piece. */
async function expectPing(rig: Rig, mtu: number): Promise<void> {
  expectInterfaces(rig, mtu);
  for (const end of [0, 1] as const) {
    const to = `10.64.0.${2 - end}`;
    // IPv4 and ICMP headers take the rest.
    const size = mtu - 28;
    const result = await ping({ netns: rig.namespaces[end].path, to, size, count: 3, timeoutMs: 5000 });
    expect(result).toMatchObject({ sent: 3, lost: 0 });
  }
}

/** The same with frames, on a link whose kernels are silent. */
function expectFrames(rig: Rig, mtu: number): void {
  expectInterfaces(rig, mtu);
  const frames = [mtu + HEADERS, 60].map((length) => numberedFrame(length, length));
  using a = rig.packetSocket(0);
  using b = rig.packetSocket(1);
  expectDelivery(a, b, frames);
  expectDelivery(b, a, frames);
}

const line = (rig: Rig, end: End, text: string, from = 0) =>
  rig.peers[end]!.line(({ event, text: found }) => event === 'log' && found === text, from);

describeNetwork('the MTU of a link between two processes', () => {
  it('is the same at both ends, whether given at one, set at one while the link runs, or not at all', async () => {
    await using rig = await Rig.up({ silent: true });
    for (const end of [0, 1] as const) {
      await line(rig, end, "MTU 16384: the smaller of ours (16384) and the peer's (16384)");
    }
    expectFrames(rig, 16384);
    let { marks } = rig;
    rig.inside(1, () => setInterface(TAP, { mtu: 9000 }));
    await line(rig, 0, 'MTU 9000: set at the peer', marks[0]);
    await line(rig, 1, 'MTU 9000: set on the interface', marks[1]);
    await rig.bothUp(marks);
    expectFrames(rig, 9000);
    await rig.stopPeer(1);
    marks = [rig.marks[0], 0];
    rig.startPeer(1, ['--mtu', '65521']);
    await line(rig, 0, 'MTU 65521: set at the peer', marks[0]);
    await rig.bothUp(marks);
    expectFrames(rig, 65521);
    for (const end of [0, 1] as const) {
      expect(await rig.stopPeer(end)).toMatchObject({ dropsOversize: 0, violations: 0 });
    }
  });

  it('is what --mtu says at each end if they differ, with a line about it, and longer frames arrive', async () => {
    await using rig = new Rig({ silent: true });
    await rig.startServer();
    rig.startPeer(0, ['--mtu', '9000']);
    rig.startPeer(1, ['--mtu', '1500']);
    await rig.bothUp();
    const rest = 'longer frames than the smaller MTU may be lost';
    await line(rig, 0, `MTU 9000: set by --mtu, while the peer's is set to 1500: ${rest}`);
    await line(rig, 1, `MTU 1500: set by --mtu, while the peer's is set to 9000: ${rest}`);
    using a = rig.packetSocket(0);
    using b = rig.packetSocket(1);
    expectDelivery(
      a,
      b,
      [9014, 1514].map((length) => numberedFrame(length, length)),
    );
  });

  it('is that of a bridge at one end, which is not lowered, and follows sections of another size', async () => {
    await using rig = new Rig({ silent: true });
    rig.inside(0, () => {
      createBridge('br0');
      setInterface('br0', { up: true, mtu: 3000 });
    });
    await rig.startServer();
    rig.startPeer(0, ['--bridge', 'br0']);
    rig.startPeer(1);
    await rig.bothUp();
    expect(rig.inside(1, () => getInterface(TAP)!.mtu)).toBe(3000);
    expect(rig.inside(0, () => getInterface('br0')!.mtu)).toBe(3000);
    // Sections of 0x2000 bytes allow 1600.
    await rig.server.stop();
    let { marks } = rig;
    await rig.startServer(0x2000);
    await rig.peers[0]!.line(
      ({ text }) => /MTU 3000 of bridge br0: output sections of 8192 bytes allow 1600/.test(text),
      marks[0],
    );
    expect(rig.inside(0, () => getInterface('br0')!.mtu)).toBe(3000);
    await rig.server.stop();
    marks = rig.marks;
    await rig.startServer(0x4000);
    await rig.bothUp(marks);
    expect(rig.inside(1, () => getInterface(TAP)!.mtu)).toBe(3000);
    expect(rig.inside(0, () => getInterface('br0')!.mtu)).toBe(3000);
  });

  it('without a bridge follows sections of another size, down and up again', async () => {
    await using rig = await Rig.up();
    await expectPing(rig, 16384);
    for (const [outputSectionSize, mtu] of [
      [0x10000, 3672],
      [0x100000, 16384],
    ] as const) {
      await rig.server.stop();
      const { marks } = rig;
      await rig.startServer(outputSectionSize);
      await rig.bothUp(marks);
      await expectPing(rig, mtu);
    }
  });
});
