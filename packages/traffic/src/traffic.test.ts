import { readdirSync, readFileSync } from 'node:fs';
import { createBridge, getInterface, missingNetworkPrivilege, Netns } from '@ivshmem/linux/network';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ping } from './ping.ts';
import { tcpTransfer } from './tcp.ts';
import { udpTransfer } from './udp.ts';
import { udpEcho } from './udp-echo.ts';
import { connectByVeth } from './veth.ts';

const missing = missingNetworkPrivilege();
const openFds = () => readdirSync('/proc/self/fd').length;
const threads = () => readdirSync('/proc/self/task').length;

describe.skipIf(missing !== null)(`traffic over a cable ${missing ?? ''}`, () => {
  let a: Netns;
  let b: Netns;

  beforeAll(() => {
    a = Netns.create();
    b = Netns.create();
    connectByVeth(a, b, {
      mtu: 1400,
      addresses: [
        ['10.9.0.1/24', 'fd09::1/64'],
        ['10.9.0.2/24', 'fd09::2/64'],
      ],
    });
  });

  afterAll(() => {
    a.close();
    b.close();
  });

  it.each(['10.9.0.2', 'fd09::2'])('pings %s', async (to) => {
    const result = await ping({ netns: a.path, to, count: 50 });
    expect(result).toMatchObject({ sent: 50, received: 50, lost: 0, duplicates: 0, corrupted: 0 });
    expect(result.rttsMicroseconds).toHaveLength(50);
    expect(Math.min(...result.rttsMicroseconds)).toBeGreaterThan(0);
  });

  it('pings with an interval, and with a payload larger than a packet', async () => {
    const before = performance.now();
    const result = await ping({ netns: a.path, to: '10.9.0.2', count: 5, intervalMs: 20, size: 20_000 });
    expect(result).toMatchObject({ sent: 5, received: 5, corrupted: 0 });
    expect(performance.now() - before).toBeGreaterThanOrEqual(80);
  });

  it('counts unanswered requests as lost', async () => {
    const seen: number[] = [];
    const onProgress = ({ sent }: { sent: number }) => seen.push(sent);
    const options = { netns: a.path, to: '10.9.0.77', count: 3, timeoutMs: 100, onProgress };
    const result = await ping(options);
    expect(result).toMatchObject({ sent: 3, received: 0, lost: 3 });
    expect(seen.length).toBeGreaterThan(0);
    expect(seen.every((sent, i) => sent <= 3 && sent >= (seen[i - 1] ?? 0))).toBe(true);
  });

  it('distinguishes the replies of two simultaneous pings', async () => {
    const options = { netns: a.path, to: '10.9.0.2', count: 200 };
    const results = await Promise.all([ping(options), ping(options)]);
    for (const result of results)
      expect(result).toMatchObject({ received: 200, duplicates: 0, corrupted: 0 });
  });

  it.each(['10.9.0.2', 'fd09::2'])('echoes datagrams of %s', async (address) => {
    const result = await udpEcho({ client: a.path, server: b.path, address, size: 1000, count: 100 });
    expect(result).toMatchObject({ sent: 100, received: 100, lost: 0, duplicates: 0, corrupted: 0 });
    expect(result.rttsMicroseconds).toHaveLength(100);
  });

  it.each(['10.9.0.2', 'fd09::2'])('transfers bytes to %s, and verifies each', async (address) => {
    const bytes = 5_000_001;
    const result = await tcpTransfer({
      from: a.path,
      to: b.path,
      address,
      bytes,
      verify: true,
      maxSegment: 600,
    });
    expect(result).toMatchObject({ bytes, checksumOk: true });
    expect(result.bitsPerSecond).toBeCloseTo((bytes * 8) / result.seconds, 0);
  });

  it('transfers with every algorithm of the kernel, including those reserved for privileged processes', async () => {
    const list = readFileSync('/proc/sys/net/ipv4/tcp_available_congestion_control', 'utf8');
    const transfer = { from: a.path, to: b.path, address: '10.9.0.2', bytes: 100_000 };
    for (const congestionControl of list.trim().split(/\s+/)) {
      expect((await tcpTransfer({ ...transfer, congestionControl })).bytes).toBe(100_000);
    }
    await expect(tcpTransfer({ ...transfer, congestionControl: 'nonsense' })).rejects.toThrow(
      /setsockopt option 13 of level 6 to nonsense: ENOENT/,
    );
  });

  it('transfers for a while', async () => {
    const seen: number[] = [];
    const onProgress = ({ bytes }: { bytes: number }) => seen.push(bytes);
    const result = await tcpTransfer({
      from: a.path,
      to: b.path,
      address: '10.9.0.2',
      seconds: 0.4,
      onProgress,
    });
    expect(result.seconds).toBeGreaterThan(0.2);
    expect(result.bytes).toBeGreaterThan(1e6);
    expect(result).not.toHaveProperty('checksumOk');
    expect(seen.at(-1)).toBeGreaterThan(0);
  });

  it('sends datagrams at a rate', async () => {
    const transfer = { from: a.path, to: b.path, address: 'fd09::2', size: 1200, verify: true };
    const result = await udpTransfer({ ...transfer, count: 400, rate: 2000 });
    expect(result).toMatchObject({
      sent: 400,
      received: 400,
      lost: 0,
      reordered: 0,
      duplicates: 0,
      corrupted: 0,
    });
    expect(result.seconds).toBeGreaterThan(0.1);
  });

  it('rejects invalid options before it starts anything', async () => {
    const before = threads();
    const tcp = { from: a.path, to: b.path, address: '10.9.0.2' };
    const udp = { ...tcp, size: 100 };
    await expect(ping({ netns: a.path, to: 'host', count: 1 })).rejects.toThrow(RangeError);
    await expect(ping({ netns: a.path, to: '10.9.0.2', count: 0 })).rejects.toThrow(RangeError);
    await expect(ping({ netns: a.path, to: '10.9.0.2', count: 1, size: 7 })).rejects.toThrow(RangeError);
    await expect(tcpTransfer(tcp)).rejects.toThrow('say either bytes or seconds');
    await expect(tcpTransfer({ ...tcp, seconds: 1, bytes: 1 })).rejects.toThrow(
      'say either bytes or seconds',
    );
    await expect(tcpTransfer({ ...tcp, bytes: 0 })).rejects.toThrow(RangeError);
    await expect(udpTransfer({ ...udp, seconds: -1 })).rejects.toThrow(RangeError);
    await expect(udpTransfer({ ...udp, count: 1, rate: 0 })).rejects.toThrow(RangeError);
    expect(threads()).toBe(before);
  });

  it('reports an error in one line, and leaves nothing running', async () => {
    await ping({ netns: a.path, to: '10.9.0.2', count: 1 });
    const before = [openFds(), threads()];
    const tcp = { from: a.path, to: b.path, address: '10.9.0.2', bytes: 1 };
    await expect(ping({ netns: a.path, to: '192.0.2.1', count: 1 })).rejects.toMatchObject({
      code: 'ENETUNREACH',
    });
    await expect(ping({ netns: '/proc/1/none', to: '10.9.0.2', count: 1 })).rejects.toThrow('ENOENT');
    await expect(tcpTransfer({ ...tcp, address: '10.9.0.3' })).rejects.toThrow(
      /^bind 10\.9\.0\.3 port 0: EADDRNOTAVAIL/,
    );
    await expect(tcpTransfer({ ...tcp, from: '/proc/1/none' })).rejects.toThrow('ENOENT');
    expect([openFds(), threads()]).toEqual(before);
  });

  it('rejects with the reason of an abort, whatever fails because of it', async () => {
    const controller = new AbortController();
    const run = ping({ netns: '/proc/1/none', to: '10.9.0.2', count: 1, signal: controller.signal });
    controller.abort();
    await expect(run).rejects.toMatchObject({ name: 'AbortError' });
  });

  const endless = {
    ping: (signal: AbortSignal) => ping({ netns: a.path, to: '10.9.0.77', count: 1000, signal }),
    'tcp transfer': (signal: AbortSignal) =>
      tcpTransfer({ from: a.path, to: b.path, address: '10.9.0.2', seconds: 60, signal }),
    'udp transfer': (signal: AbortSignal) =>
      udpTransfer({ from: a.path, to: b.path, address: '10.9.0.2', size: 100, seconds: 60, rate: 3, signal }),
    'udp echo': (signal: AbortSignal) =>
      udpEcho({ client: a.path, server: b.path, address: '10.9.0.2', count: 1000, intervalMs: 500, signal }),
  };

  it.each(Object.keys(endless) as (keyof typeof endless)[])('%s ends when it is aborted', async (kind) => {
    await ping({ netns: a.path, to: '10.9.0.2', count: 1 });
    const before = [openFds(), threads()];
    const controller = new AbortController();
    const run = endless[kind](controller.signal);
    let abortedAt = 0;
    setTimeout(() => {
      abortedAt = performance.now();
      controller.abort();
    }, 200);
    await expect(run).rejects.toMatchObject({ name: 'AbortError' });
    // Without the abort, each would run for a minute.
    expect(performance.now() - abortedAt).toBeLessThan(20_000);
    expect([openFds(), threads()]).toEqual(before);
    await expect(endless[kind](controller.signal)).rejects.toMatchObject({ name: 'AbortError' });
  });
});

describe.skipIf(missing !== null)('a cable', () => {
  it('is deleted if it cannot be connected', () => {
    using a = Netns.create();
    using b = Netns.create();
    const addresses = [['10.9.0.1/24'], ['10.9.0.2']] as const;
    expect(() => connectByVeth(a, b, { addresses })).toThrow(RangeError);
    expect(a.run(() => getInterface('veth0'))).toBeNull();
    b.run(() => createBridge('veth0'));
    expect(() => connectByVeth(a, b)).toThrow('EEXIST');
    expect(a.run(() => getInterface('veth0'))).toBeNull();
    expect(b.run(() => getInterface('veth0'))).toMatchObject({ kind: 'bridge' });
  });
});
