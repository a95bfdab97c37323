import { readFileSync } from 'node:fs';
import { OptionError } from '@ivshmem/linux';
import {
  createBridge,
  getInterface,
  missingNetworkPrivilege,
  Netns,
  openPacketSocket,
  setInterface,
  setIpv6,
  waitForInterface,
} from '@ivshmem/linux/network';
import { Loopback } from '@ivshmem/transport';
import { type AnnouncedMtu, announcedMtu, ringLayout, State } from '@ivshmem/transport/protocol';
import { filter, firstValueFrom } from 'rxjs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { frame, HandPeer } from './hand-peer.test-support.ts';
import { createLink, type Link } from './link.ts';
import type { LinkOptions } from './link-options.ts';

const missing = missingNetworkPrivilege();
const skip = missing !== null && process.env.CI === undefined;

const SECTION = 0x100000;
const layout = ringLayout(SECTION);

describe.skipIf(skip)(`the MTU of a link${skip ? ` (skipped: ${missing})` : ''}`, () => {
  let netns: Netns;
  let loopback: Loopback;
  let link: Link;
  let peer: HandPeer;
  let announced: AnnouncedMtu | null;
  let lines: string[];

  beforeEach(() => {
    netns = Netns.create();
    loopback = new Loopback({ outputSectionSize: SECTION });
    announced = null;
    peer = new HandPeer(loopback, 0, () => announced);
    lines = [];
  });

  afterEach(async () => {
    await link?.close();
    peer.close();
    loopback.close();
    netns.close();
  });

  const start = async (options: Partial<LinkOptions> = {}) => {
    link = await createLink({
      port: { type: 'loopback', end: loopback.ends[0] },
      tap: 'ivn0',
      netns: netns.path,
      ...options,
    });
    link.log$.subscribe((text) => lines.push(text));
    // So that the kernel sends no frames of its own.
    if (options.addresses === undefined) netns.run(() => setIpv6('ivn0', false));
  };
  const carrier = (wanted: boolean) =>
    firstValueFrom(link.state$.pipe(filter((status) => status.carrier === wanted)));
  const up = async () => {
    peer.until(() => peer.side.status.carrier);
    await carrier(true);
  };
  /** The peer goes through RESET, and announces the current value of `announced`. */
  const again = () => {
    peer.side.setEnabled(false);
    peer.until(() => peer.port.peerState(0) < State.READY);
    peer.side.setEnabled(true);
    peer.until(() => peer.side.status.carrier);
  };
  const ofInterface = () => netns.run(() => getInterface('ivn0')!.mtu);
  /** Until the kernel has noticed the carrier, it drops the frames that it sends. */
  const untilKernelSends = () => {
    netns.run(() => waitForInterface('ivn0', (found) => found?.carrier === true && found.operState === 'up'));
  };
  const logged = async (line: string) => {
    while (!lines.includes(line)) await firstValueFrom(link.log$);
  };
  const info = (mtu: number) => firstValueFrom(link.info$.pipe(filter((found) => found.mtu === mtu)));

  it('is 1500 towards a peer that announces none, and is set before the carrier is on', async () => {
    await start();
    expect(link.info.mtu).toBe(16384);
    expect(ofInterface()).toBe(16384);
    await up();
    await info(1500);
    expect(ofInterface()).toBe(1500);
    await carrier(true);
    expect(lines).toEqual(['MTU 1500: the peer announces none; --mtu sets another']);
    // Longer frames from the peer are not lost.
    using socket = netns.run(() => openPacketSocket('ivn0'));
    for (const length of [1518, 9014, 16398]) {
      peer.send(frame(length, length));
      expect(socket.receive(2000)).toEqual(frame(length, length));
    }
    untilKernelSends();
    for (const length of [1514, 60]) {
      socket.send(frame(length, length));
      expect(peer.receive()).toEqual(frame(length, length));
    }
  });

  it('follows each new peer, within the limits, and logs it', async () => {
    await start();
    const cases: [AnnouncedMtu, number][] = [
      [{ bytes: 16384, set: false }, 16384],
      [{ bytes: 9000, set: false }, 9000],
      [{ bytes: 65521, set: true }, 65521],
      [{ bytes: 65535, set: true }, 65521],
      [{ bytes: 1400, set: true }, 1400],
      [{ bytes: 68, set: true }, 1280],
      [{ bytes: 67, set: true }, 1500],
      [{ bytes: 0, set: false }, 1500],
      [{ bytes: 65535, set: false }, 16384],
    ];
    announced = cases[0]![0];
    await up();
    for (const [announcement, mtu] of cases) {
      announced = announcement;
      again();
      await info(mtu);
      expect(ofInterface()).toBe(mtu);
      untilKernelSends();
      using socket = netns.run(() => openPacketSocket('ivn0'));
      socket.send(frame(7, mtu + 14));
      expect(peer.receive()).toEqual(frame(7, mtu + 14));
    }
    await logged("MTU 16384: the smaller of ours (16384) and the peer's (16384)");
    await logged("MTU 1280: as near as possible to the peer's (68)");
    expect(link.stats()).toMatchObject({ violations: 0, dropsOversize: 0 });
  });

  it('keeps the addresses of the interface, whatever peers announce', async () => {
    await start({ addresses: ['10.9.0.1/24', 'fd09::1/64'] });
    announced = { bytes: 68, set: true };
    await up();
    await info(1280);
    announced = { bytes: 16384, set: false };
    again();
    await info(16384);
    const addresses = netns.run(() => readFileSync('/proc/thread-self/net/if_inet6', 'utf8'));
    expect(addresses).toContain('fd090000000000000000000000000001');
  });

  it('ignores what the peer writes after the start', async () => {
    announced = { bytes: 9000, set: true };
    await start();
    await up();
    await info(9000);
    const words = new Uint16Array(peer.port.output!.buffer, 0, layout.data / 2);
    for (let i = 0; i < 100; i++) {
      words[layout.avail / 2 + layout.length + 3] = 68 + i;
      words[layout.used / 2] = i;
      words[layout.avail / 2] = 0xffff - i;
      peer.port.ring(0, 0);
      peer.port.ring(0, 1);
    }
    using socket = netns.run(() => openPacketSocket('ivn0'));
    untilKernelSends();
    socket.send(frame(1, 9014));
    expect(peer.receive()).toEqual(frame(1, 9014));
    expect(ofInterface()).toBe(9000);
    expect(link.stats()).toMatchObject({ resets: 0 });
  });

  it('is logged at a limited rate if the peer keeps changing it', async () => {
    announced = { bytes: 1500, set: true };
    await start();
    await up();
    for (let i = 0; i < 100; i++) {
      announced = { bytes: 1500 + i, set: true };
      again();
    }
    expect(lines.length).toBeLessThan(60);
    await info(1599);
    expect(ofInterface()).toBe(1599);
  });

  it('that is set on the interface is announced, by a reset, to a peer with the extension, and kept', async () => {
    announced = { bytes: 16384, set: false };
    await start();
    await up();
    expect(announcedMtu(peer.port.input(0)!, layout)).toEqual({ bytes: 16384, set: false });
    netns.run(() => setInterface('ivn0', { mtu: 9000 }));
    peer.until(() => peer.side.counters.resets === 1 && peer.side.status.carrier);
    await info(9000);
    expect(announcedMtu(peer.port.input(0)!, layout)).toEqual({ bytes: 9000, set: true });
    announced = { bytes: 1500, set: true };
    again();
    expect(ofInterface()).toBe(9000);
    await logged(
      "MTU 9000: set on the interface, while the peer's is set to 1500: longer frames than the smaller MTU may be lost",
    );
    // The reset is counted at the end of the evaluation that it is part of.
    await vi.waitFor(() => expect(link.stats()).toMatchObject({ resets: 2, violations: 0 }), 10_000);
  });

  it('that is set on the interface before there is a peer is announced, too', async () => {
    await start();
    netns.run(() => setInterface('ivn0', { mtu: 2000 }));
    await info(2000);
    announced = { bytes: 16384, set: false };
    await up();
    expect(announcedMtu(peer.port.input(0)!, layout)).toEqual({ bytes: 2000, set: true });
    expect(ofInterface()).toBe(2000);
  });

  it.each([1500, 9000])('is that of a bridge, %i, which keeps it', async (mtu) => {
    netns.run(() => {
      createBridge('br0');
      setInterface('br0', { up: true, mtu });
    });
    announced = { bytes: 16384, set: false };
    await start({ bridge: 'br0' });
    expect(link.info.mtu).toBe(mtu);
    await up();
    expect(announcedMtu(peer.port.input(0)!, layout)).toEqual({ bytes: mtu, set: true });
    expect(ofInterface()).toBe(mtu);
    expect(netns.run(() => getInterface('br0')!.mtu)).toBe(mtu);
    await logged(`MTU ${mtu}: that of bridge br0`);
  });

  it('becomes that of a bridge that the interface joins later', async () => {
    announced = { bytes: 16384, set: false };
    await start();
    await up();
    netns.run(() => {
      createBridge('br0');
      setInterface('br0', { up: true, mtu: 1400 });
      setInterface('ivn0', { bridge: 'br0' });
    });
    peer.until(() => peer.side.counters.resets === 1 && peer.side.status.carrier);
    await info(1400);
    expect(ofInterface()).toBe(1400);
  });

  it('is not lowered for a bridge by sections that are too small: the link does not start', async () => {
    loopback.close();
    loopback = new Loopback({ outputSectionSize: 0x1000 });
    netns.run(() => createBridge('br0'));
    const options = {
      port: { type: 'loopback', end: loopback.ends[0] },
      tap: 'ivn0',
      netns: netns.path,
      bridge: 'br0',
    } as const;
    await expect(createLink(options)).rejects.toBeInstanceOf(OptionError);
    await expect(createLink(options)).rejects.toMatchObject({ option: 'bridge' });
    await expect(createLink(options)).rejects.toThrow(
      /^MTU 1500 of bridge br0: output sections of 4096 bytes allow 576 at most; [^\n]*$/,
    );
    expect(netns.run(() => getInterface('ivn0'))).toBeNull();
    expect(netns.run(() => getInterface('br0')!.mtu)).toBe(1500);
    // Only an explicit option lowers the bridge, with a warning.
    link = await createLink({ ...options, mtu: 576 });
    expect(link.info.mtu).toBe(576);
  });
});
