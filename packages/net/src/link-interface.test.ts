import { execFileSync } from 'node:child_process';
import type { SystemCallError } from '@ivshmem/linux';
import {
  createNamedNetns,
  deleteInterface,
  deleteNamedNetns,
  getInterface,
  missingNetworkPrivilege,
  Netns,
  openPacketSocket,
  openTap,
  setInterface,
  setIpv6,
  waitForInterface,
} from '@ivshmem/linux/network';
import { Loopback } from '@ivshmem/transport';
import { State } from '@ivshmem/transport/protocol';
import { filter, firstValueFrom } from 'rxjs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { frame, HandPeer } from './hand-peer.test-support.ts';
import { createLink, type Link } from './link.ts';
import type { LinkInfo } from './link-messages.ts';

const OUTPUT_SIZE = 0x10000;
/** The largest MTU for such sections. */
const MAX_MTU = 14688;
const missing = missingNetworkPrivilege();
const skip = missing !== null && process.env.CI === undefined;

describe.skipIf(skip)(`the interface of a link${skip ? ` (skipped: ${missing})` : ''}`, () => {
  let netns: Netns;
  let loopback: Loopback;
  let link: Link;
  let peer: HandPeer;

  const start = async (name = netns.path) => {
    link = await createLink({
      port: { type: 'loopback', end: loopback.ends[0] },
      tap: 'ivn0',
      netns: name,
      mtu: 1500,
    });
  };
  const running = () => peer.side.status.carrier;
  const info = (wanted: (info: LinkInfo) => boolean) => firstValueFrom(link.info$.pipe(filter(wanted)));
  const carrier = (wanted: boolean) =>
    firstValueFrom(link.state$.pipe(filter((status) => status.carrier === wanted)));

  beforeEach(() => {
    netns = Netns.create();
    loopback = new Loopback({ outputSectionSize: OUTPUT_SIZE });
    peer = new HandPeer(loopback);
  });

  afterEach(async () => {
    await link.close();
    peer.close();
    loopback.close();
    netns.close();
  });

  /** Frames pass in both directions; the interface is called `name` in `where`. */
  function expectTraffic(where: Netns, name: string, length = 1514): void {
    using socket = where.run(() => openPacketSocket(name));
    peer.send(frame(length, length));
    expect(socket.receive(5000)).toEqual(frame(length, length));
    socket.send(frame(length + 1, length));
    expect(peer.receive()).toEqual(frame(length + 1, length));
  }

  it('has a MAC address that was set explicitly, which udev does not replace', async () => {
    await start();
    const address = () => netns.run(() => getInterface('ivn0')!.mac);
    const first = address();
    // Unicast, locally administered.
    expect(Number.parseInt(first, 16) & 0x03).toBe(0x02);
    const script = 'mount -t sysfs sysfs /sys && cat /sys/class/net/ivn0/addr_assign_type';
    const command = [`--net=${netns.path}`, 'unshare', '--mount', 'sh', '-c', script];
    // NET_ADDR_SET
    expect(execFileSync('nsenter', command, { encoding: 'utf8' })).toBe('3\n');
    await link.close();
    await start();
    expect(address()).not.toBe(first);
  });

  it('is followed through a rename, even if another interface takes its name', async () => {
    await start();
    peer.until(running);
    await carrier(true);
    netns.run(() => setInterface('ivn0', { up: false }));
    await carrier(false);
    netns.run(() => {
      setInterface('ivn0', { name: 'lan7' });
      openTap('ivn0', { persist: true }).close();
    });
    expect(await info(({ tap }) => tap !== 'ivn0')).toMatchObject({ tap: 'lan7', mtu: 1500 });
    netns.run(() => setInterface('lan7', { up: true }));
    netns.run(() => setIpv6('lan7', false));
    peer.until(running);
    await carrier(true);
    expectTraffic(netns, 'lan7');
    expect(netns.run(() => getInterface('ivn0'))).toMatchObject({ up: false, mtu: 1500 });
    netns.run(() => deleteInterface('ivn0'));
    expectTraffic(netns, 'lan7');
  });

  it('is followed to another network namespace', async () => {
    await start();
    peer.until(running);
    await carrier(true);
    using other = Netns.create();
    // Another interface may take the name in this namespace: the link must ignore it.
    netns.run(() => {
      setInterface('ivn0', { netns: other.fd });
      openTap('ivn0', { persist: true }).close();
      setInterface('ivn0', { up: true });
    });
    // The kernel takes an interface down when it moves it.
    await carrier(false);
    other.run(() => {
      setIpv6('ivn0', false);
      setInterface('ivn0', { up: true, name: 'lan7', mtu: 9000 });
    });
    expect(await info(({ tap, mtu }) => tap === 'lan7' && mtu === 9000)).toBeDefined();
    peer.until(running);
    await carrier(true);
    expectTraffic(other, 'lan7', 9014);
    netns.run(() => deleteInterface('ivn0'));
    expectTraffic(other, 'lan7', 9014);
    other.run(() => deleteInterface('lan7'));
    expect((await link.closed)?.message).toBe('interface lan7: it has been deleted');
  });

  it('has its MTU followed, as far as the sections allow', async () => {
    await start();
    netns.run(() => setIpv6('ivn0', false));
    peer.until(running);
    await carrier(true);
    netns.run(() => setInterface('ivn0', { mtu: 9000 }));
    await info(({ mtu }) => mtu === 9000);
    expectTraffic(netns, 'ivn0', 9014);
    const line = firstValueFrom(link.log$.pipe(filter((text) => text.includes('dropped'))));
    netns.run(() => setInterface('ivn0', { mtu: MAX_MTU + 1 }));
    expect(await line).toBe(
      `MTU ${MAX_MTU + 1} (set on the interface): output sections of 65536 bytes allow ${MAX_MTU}; longer frames are dropped`,
    );
    expectTraffic(netns, 'ivn0', MAX_MTU + 14);
    netns.run(() => setInterface('ivn0', { mtu: 600 }));
    await info(({ mtu }) => mtu === 600);
    expectTraffic(netns, 'ivn0', 614);
  });

  it('takes the peer’s carrier down and up with itself', async () => {
    await start();
    peer.until(running);
    await carrier(true);
    for (let i = 0; i < 3; i++) {
      netns.run(() => setInterface('ivn0', { up: false }));
      peer.until(() => !running() && peer.side.status.peer === State.RESET);
      await carrier(false);
      netns.run(() => setInterface('ivn0', { up: true }));
      peer.until(running);
      await carrier(true);
    }
    netns.run(() => setIpv6('ivn0', false));
    netns.run(() => waitForInterface('ivn0', (found) => found?.operState === 'up'));
    expectTraffic(netns, 'ivn0');
  });

  it('ends the link when it is deleted while the ring is full', async () => {
    await start();
    netns.run(() => setIpv6('ivn0', false));
    peer.until(running);
    await carrier(true);
    {
      using socket = netns.run(() => openPacketSocket('ivn0'));
      // The peer receives nothing, so the ring fills, then the queue of the interface.
      while (link.stats().ringFull === 0) {
        try {
          socket.send(frame(1, 1514));
        } catch (error) {
          if ((error as SystemCallError).code !== 'ENOBUFS') throw error;
        }
      }
    }
    netns.run(() => deleteInterface('ivn0'));
    expect((await link.closed)?.message).toMatch(/^[^\n]*interface ivn0: .*it has been deleted$/);
  });

  it('ends the link when the name of its network namespace is deleted or belongs to another one', async () => {
    const name = `ivshmem-interface-${process.pid}`;
    for (const again of [false, true]) {
      createNamedNetns(name).close();
      try {
        await start(name);
      } finally {
        deleteNamedNetns(name);
        if (again) createNamedNetns(name).close();
      }
      expect((await link.closed)?.message).toMatch(`network namespace ${name}: it has been deleted`);
      if (again) deleteNamedNetns(name);
    }
  });
});
