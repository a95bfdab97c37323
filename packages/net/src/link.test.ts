import { readdirSync, readFileSync, writeSync } from 'node:fs';
import { SystemCallError, setNonBlocking } from '@ivshmem/linux';
import { mapShared } from '@ivshmem/linux/memory';
import {
  deleteInterface,
  getInterface,
  missingNetworkPrivilege,
  Netns,
  openPacketSocket,
  setIpv6,
} from '@ivshmem/linux/network';
import { drainEventFd } from '@ivshmem/linux/wait';
import { Loopback } from '@ivshmem/transport';
import { ringLayout, State } from '@ivshmem/transport/protocol';
import { filter, firstValueFrom, takeWhile, toArray } from 'rxjs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { frame, HandPeer } from './hand-peer.test-support.ts';
import { createLink, type Link } from './link.ts';

const OUTPUT_SIZE = 0x10000;
const missing = missingNetworkPrivilege();
const skip = missing !== null && process.env.CI === undefined;

it('a link without its server is rejected with the error of the system call', async () => {
  const socketPath = '/nonexistent/server';
  const rejected = createLink({ port: { type: 'server', socketPath }, tap: 'ivn0' });
  await expect(rejected).rejects.toBeInstanceOf(SystemCallError);
  await expect(rejected).rejects.toMatchObject({
    code: 'ENOENT',
    errno: 2,
    syscall: 'connect',
    subject: socketPath,
  });
});

describe.skipIf(skip)(`createLink${skip ? ` (skipped: ${missing})` : ''}`, () => {
  let netns: Netns;
  let loopback: Loopback;
  let link: Link;
  let peer: HandPeer;

  beforeEach(async () => {
    netns = Netns.create();
    loopback = new Loopback({ outputSectionSize: OUTPUT_SIZE });
    peer = new HandPeer(loopback);
    link = await createLink({
      port: { type: 'loopback', end: loopback.ends[0] },
      tap: 'ivn0',
      netns: netns.path,
      mtu: 1500,
    });
    // So that the kernel sends no frames of its own.
    netns.run(() => setIpv6('ivn0', false));
  });

  afterEach(async () => {
    await link.close();
    peer.close();
    loopback.close();
    netns.close();
  });

  const running = () => peer.side.status.carrier;
  const carrier = () => netns.run(() => getInterface('ivn0')!.carrier);
  const state = (wanted: boolean) =>
    firstValueFrom(link.state$.pipe(filter((status) => status.carrier === wanted)));
  const counted = async (what: keyof ReturnType<Link['stats']>, count: number) => {
    while (link.stats()[what] < count) await new Promise((resolve) => setImmediate(resolve));
  };

  it('reports its properties', () => {
    expect(link.info).toEqual({
      id: 0,
      tap: 'ivn0',
      mtu: 1500,
      outputSectionSize: OUTPUT_SIZE,
      queueLength: 256,
      vectors: 2,
    });
    expect(netns.run(() => getInterface('ivn0'))).toMatchObject({ mtu: 1500, up: true, carrier: false });
  });

  it('brings the carrier up and down with the handshake, and reports each state once', async () => {
    const states = firstValueFrom(
      link.state$.pipe(
        takeWhile((status) => !status.carrier, true),
        toArray(),
      ),
    );
    peer.until(running);
    await state(true);
    expect(carrier()).toBe(true);
    const seen = (await states).map(({ local }) => local);
    expect(seen).toEqual(seen.toSorted((a, b) => a - b));
    expect(seen.slice(-2)).not.toContain(State.RESET);
    expect(seen).toEqual(expect.arrayContaining([State.INIT, State.READY, State.RUN]));
    peer.side.close();
    await state(false);
    expect(carrier()).toBe(false);
  });

  it('passes frames both ways, unchanged, and counts them', async () => {
    peer.until(running);
    await state(true);
    using socket = netns.run(() => openPacketSocket('ivn0'));
    for (const length of [14, 60, 1514, 1518]) {
      peer.send(frame(length, length));
      expect(socket.receive(2000)).toEqual(frame(length, length));
      const answer = frame(length, Math.min(Math.max(length, 18), 1514));
      socket.send(answer);
      expect(peer.receive()).toEqual(answer);
    }
    expect(link.stats()).toMatchObject({ rxFrames: 4, txFrames: 4, dropsOversize: 0, dropsRunt: 0 });
  });

  it('drops runts and counts them', async () => {
    peer.until(running);
    await state(true);
    peer.send(frame(1).subarray(0, 13));
    await counted('dropsRunt', 1);
    expect(link.stats().violations).toBe(0);
  });

  it('resets the link, with one line in the log, when the peer violates the protocol, and recovers', async () => {
    peer.until(running);
    await state(true);
    const line = firstValueFrom(link.log$);
    const { avail } = ringLayout(OUTPUT_SIZE);
    new Uint16Array(peer.port.output!.buffer)[avail / 2 + 1] = 1000;
    peer.port.ring(0, 1);
    expect(await line).toMatch(/^the peer violates the protocol: avail\.idx .*; the link is reset$/);
    await state(false);
    peer.until(() => peer.side.counters.resets === 1 && running());
    await state(true);
    await counted('violations', 1);
    await counted('resets', 1);
    using socket = netns.run(() => openPacketSocket('ivn0'));
    peer.send(frame(5));
    expect(socket.receive(2000)).toEqual(frame(5));
  });

  it('interrupts a sender that requests it too late and does not check again, as Linux does', async () => {
    peer.until(running);
    await state(true);
    const { avail, length } = ringLayout(OUTPUT_SIZE);
    const usedEvent = new Uint16Array(peer.port.output!.buffer, avail + 4 + 2 * length, 1);
    let interrupts = 0;
    peer.port.onInterrupt((vector) => (vector === 0 ? peer.side.evaluate() : interrupts++));
    const sendTwo = () => {
      for (let frames = 0; frames < 2; frames++) {
        peer.send(frame(1));
        peer.until(() => peer.tx.reclaim() > 0);
      }
    };
    // Far from the completions below.
    usedEvent[0] = 0x8000;
    sendTwo();
    expect(interrupts).toBe(0);
    // That completion has been made already, so no later one triggers the interrupt. The sender is interrupted all the
    // same, some ms later, and again in case it could not act.
    usedEvent[0] = 1;
    sendTwo();
    peer.until(() => interrupts >= 2);
    // An idle link sends no interrupts.
    const pause = (ms: number) => {
      const end = performance.now() + ms;
      peer.until(() => performance.now() > end);
    };
    pause(400);
    const before = interrupts;
    expect(before).toBeLessThan(4);
    pause(400);
    expect(interrupts).toBe(before);
  });

  it('follows the state table even if no interrupt ever arrives', async () => {
    using table = mapShared(loopback.ends[1].memoryFd, 4096, { write: true });
    const states = new Uint32Array(table.buffer);
    const local = (wanted: number) =>
      firstValueFrom(link.state$.pipe(filter((status) => status.local === wanted)));
    for (let i = 0; i < 3; i++) {
      await local(State.INIT);
      states[1] = State.INIT;
      await local(State.READY);
      states[1] = State.RESET;
    }
  });

  it('treats states above 3 as RESET and counts them', async () => {
    peer.until(running);
    await state(true);
    peer.port.state = 77;
    await state(false);
    await counted('invalidPeerStates', 1);
  });

  it('continues if the peer has made a doorbell block', async () => {
    peer.until(running);
    await state(true);
    const doorbell = peer.port.doorbells(1)[0]!;
    makeBlocking(doorbell);
    // The next poll of the handshake signals it.
    while (countOf(doorbell) !== 'ffffffffffffffff') await new Promise((resolve) => setTimeout(resolve, 10));
    using socket = netns.run(() => openPacketSocket('ivn0'));
    peer.send(frame(5));
    expect(socket.receive(2000)).toEqual(frame(5));
    expect(link.stats().resets).toBe(0);
  });

  it('can be closed if the peer has made its doorbells block', async () => {
    peer.until(running);
    await state(true);
    // A hostile peer can bring the counters of its eventfds to their limit and clear O_NONBLOCK.
    const held = peer.port.doorbells(1);
    for (const fd of held) makeBlocking(fd);
    peer.port.ring(0, 0);
    await link.close();
    expect(netns.run(() => getInterface('ivn0'))).toBeNull();
    for (const fd of held) setNonBlocking(fd);
  });

  it('closes every descriptor', async () => {
    const count = () => readdirSync('/proc/self/fd').length;
    const namespaceAndPeer = count();
    await link.close();
    const before = count();
    expect(before).toBeLessThan(namespaceAndPeer);
    for (let i = 0; i < 5; i++) {
      const again = await createLink({
        port: { type: 'loopback', end: loopback.ends[0] },
        tap: 'ivn0',
        netns: netns.path,
      });
      await again.close();
    }
    expect(count()).toBe(before);
  });

  it('fails in one line and leaves nothing behind if the interface is in use', async () => {
    const before = readdirSync('/proc/self/fd').length;
    const options = {
      port: { type: 'loopback', end: loopback.ends[0] },
      tap: 'ivn0',
      netns: netns.path,
    } as const;
    await expect(createLink(options)).rejects.toThrow(/^TUNSETIFF interface ivn0: EBUSY: [^\n]+$/);
    expect(readdirSync('/proc/self/fd')).toHaveLength(before);
  });

  it('ends with an error when its interface is deleted', async () => {
    netns.run(() => deleteInterface('ivn0'));
    expect(await link.closed).toMatchObject({ message: expect.stringContaining('ivn0') });
  });
});

/** Brings an eventfd's counter to its limit and clears O_NONBLOCK, for all holders of the eventfd. */
function makeBlocking(fd: number): void {
  drainEventFd(fd);
  writeSync(fd, new Uint8Array(new BigUint64Array([0xfffffffffffffffen]).buffer));
  setNonBlocking(fd, false);
}

/** The counter of an eventfd, in hexadecimal. */
function countOf(fd: number): string {
  return /^eventfd-count:\s*(\w+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1]!;
}
