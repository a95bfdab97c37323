import { once } from 'node:events';
import { writeSync } from 'node:fs';
import { connect } from 'node:net';
import { UnixSocket } from '@ivshmem/linux/socket';
import { type HttpListener, listenHttp } from '@ivshmem/monitor/http';
import { afterEach, describe, expect, it } from 'vitest';
import { DescriptorBudget } from '../server/descriptor-budget.ts';
import { occurrence, openFds, useHostServers } from '../server/strict-client.test-support.ts';
import { createMetrics } from './metrics.ts';

/** Samples by name and labels. */
function samples(text: string): Map<string, number> {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => line.split(/ (?=[^ ]+$)/)).map(([name, value]) => [name!, Number(value)]),
  );
}

describe('metrics', () => {
  const fixture = useHostServers();
  let listener: HttpListener | undefined;
  afterEach(async () => {
    await listener?.close();
    listener = undefined;
  });

  it('count events and show the present state', async () => {
    const budget = DescriptorBudget.ofProcess();
    const metrics = createMetrics(budget);
    const server = fixture.start({ maxPeers: 3, budget });
    metrics.watch('blue', server);
    const value = async (name: string) => samples(await metrics.text()).get(name);
    expect(await value('ivshmem_joins_total{link="blue"}')).toBe(0);
    expect(await value('ivshmem_refusals_total{link="blue",cause="no-free-id"}')).toBe(0);
    const clients = [await fixture.join(1, []), await fixture.join(1, [0]), await fixture.join(1, [0, 1])];
    await fixture.connect().expectEnd();
    const states = Uint32Array.of(3, 0xdeadbeef, 1);
    writeSync(clients[0]!.memory, new Uint8Array(states.buffer), 0, 12, 0);
    const before = samples(await metrics.text());
    expect(Object.fromEntries([...before].filter(([name]) => name.startsWith('ivshmem_')))).toMatchObject({
      'ivshmem_peers{link="blue"}': 3,
      'ivshmem_peers_max{link="blue"}': 3,
      'ivshmem_joins_total{link="blue"}': 3,
      'ivshmem_refusals_total{link="blue",cause="no-free-id"}': 1,
      'ivshmem_peer_states{link="blue",state="RUN"}': 1,
      'ivshmem_peer_states{link="blue",state="INIT"}': 1,
      'ivshmem_peer_states{link="blue",state="other"}': 1,
      'ivshmem_peer_states{link="blue",state="READY"}': 0,
      'ivshmem_queued_bytes{link="blue"}': 0,
      'ivshmem_shared_memory_bytes{link="blue"}': 4 << 20,
      ivshmem_descriptors_left: budget.left,
    });
    expect(before.get('process_open_fds')).toBeGreaterThanOrEqual(openFds() - 2);
    expect(before.get('process_max_fds')).toBe(budget.limit);
    expect(before.get('process_resident_memory_bytes')).toBeGreaterThan(10 << 20);
    const gone = occurrence(server, 'peer-gone');
    clients[1]!.disconnect();
    await gone;
    expect(await value('ivshmem_departures_total{link="blue",cause="disconnected"}')).toBe(1);
    const misbehaved = UnixSocket.connect(fixture.socketPath);
    await occurrence(server, 'peer-joined');
    const evicted = occurrence(server, 'peer-gone');
    misbehaved.send(Uint8Array.of(1));
    await evicted;
    misbehaved.close();
    expect(await value('ivshmem_departures_total{link="blue",cause="sent-data"}')).toBe(1);
    expect(await value('ivshmem_evictions_total{link="blue"}')).toBe(1);
    server.close();
    expect(await value('ivshmem_peers{link="blue"}')).toBeUndefined();
    expect(await value('ivshmem_joins_total{link="blue"}')).toBe(4);
  });

  it('follow the rules of promtool check metrics', async () => {
    const metrics = createMetrics(DescriptorBudget.ofProcess());
    metrics.watch('blue', fixture.start());
    const families = [...(await metrics.text()).matchAll(/^# HELP (\S+) (.*)\n# TYPE \1 (\S+)$/gm)];
    expect(families.length).toBeGreaterThan(15);
    for (const [, name, help, type] of families as unknown as [string, string, string, string][]) {
      expect({ name, help }).toEqual({ name, help: expect.stringMatching(/\S/) });
      expect({ name, type, total: name.endsWith('_total') }).toEqual({
        name,
        type: expect.stringMatching(/^(counter|gauge)$/),
        total: type === 'counter',
      });
      // Lower case, base units, no suffixes of histograms, no name of a type.
      expect(name).toMatch(/^[a-z][a-z0-9]*(_[a-z0-9]+)+$/);
      expect(name).not.toMatch(
        /_(count|sum|bucket|counter|gauge|ms|milliseconds|us|kb|kilobytes|percent)(_|$)/,
      );
    }
  });

  it('show messages that are pending for a peer that does not read', async () => {
    const metrics = createMetrics(DescriptorBudget.ofProcess());
    const server = fixture.start({ maxPeers: 3, vectors: 64 });
    metrics.watch('blue', server);
    fixture.connect();
    await occurrence(server, 'peer-joined');
    const passing = fixture.connect();
    await occurrence(server, 'peer-joined');
    passing.close();
    await occurrence(server, 'peer-gone');
    // Announced once PEER_GONE is read.
    fixture.connect();
    await occurrence(server, 'peer-joined');
    const text = samples(await metrics.text());
    expect(text.get('ivshmem_queued_messages{link="blue"}')).toBe(server.waiting.messages);
    expect(text.get('ivshmem_queued_bytes{link="blue"}')).toBe(server.waiting.bytes);
    expect(server.waiting.bytes).toBe(64 * 16);
  });

  it('are served over HTTP, with the health', async () => {
    const problems: string[] = [];
    const metrics = createMetrics(DescriptorBudget.ofProcess());
    metrics.watch('blue', fixture.start());
    listener = await listenHttp({ address: '127.0.0.1', port: 0 }, { metrics, problems: () => problems });
    const url = `http://127.0.0.1:${listener.address.port}`;
    const get = async (path: string, method = 'GET') => {
      const response = await fetch(`${url}${path}`, { method });
      return [response.status, await response.text()] as const;
    };
    const response = await fetch(`${url}/metrics`);
    expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(await response.text()).toContain('\nivshmem_peers{link="blue"} 0\n');
    expect(await get('/healthz')).toEqual([200, 'ok\n']);
    problems.push('green: bind /run/green: EACCES');
    expect(await get('/healthz')).toEqual([503, 'green: bind /run/green: EACCES\n']);
    expect((await get('/'))[0]).toBe(404);
    expect((await get('/metrics', 'POST'))[0]).toBe(405);
    const { port } = listener.address;
    await expect(
      listenHttp({ address: '127.0.0.1', port }, { metrics, problems: () => problems }),
    ).rejects.toThrow(
      `127.0.0.1:${port}: EADDRINUSE: in use by another program: choose another address or port`,
    );
  });

  it('close with idle connections open, which are limited in number', async () => {
    const metrics = createMetrics(DescriptorBudget.ofProcess());
    listener = await listenHttp({ address: '127.0.0.1', port: 0 }, { metrics, problems: () => [] });
    const sockets = Array.from({ length: 40 }, () => connect(listener!.address.port, '127.0.0.1'));
    for (const socket of sockets) socket.on('error', () => {}).resume();
    // Further ones are closed at once.
    await Promise.all(sockets.slice(-8).map((socket) => once(socket, 'close')));
    expect(sockets.filter((socket) => socket.closed)).toHaveLength(8);
    const closed = sockets.slice(0, 32).map((socket) => once(socket, 'close'));
    await listener.close();
    await Promise.all(closed);
  });
});
