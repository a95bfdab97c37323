import { drainEventFd, signalEventFd } from '@ivshmem/linux/wait';
import { afterEach, describe, expect, it } from 'vitest';
import type { HostServer } from './host-server.ts';
import { OriginalClient } from './original-client.test-support.ts';
import { occurrence, readable, useHostServers } from './strict-client.test-support.ts';

describe.each([
  ['one byte', 1],
  ['as much as it asks for', 4096],
])('the original client, given %s at a time', (_name, limit) => {
  const fixture = useHostServers();
  const clients = new Set<OriginalClient>();
  afterEach(() => {
    for (const client of clients) client.close();
    clients.clear();
  });

  async function connect(server: HostServer): Promise<OriginalClient> {
    const joined = occurrence(server, 'peer-joined');
    const client = new OriginalClient(fixture.socketPath, limit);
    clients.add(client);
    await joined;
    return client;
  }

  /** Reads until the client knows exactly these peers with all vectors, and has seen this number of departures. */
  async function readUntil(client: OriginalClient, ids: number[], departures = 0): Promise<void> {
    const isThere = () =>
      client.departures === departures &&
      client.peers.size === ids.length &&
      ids.every((id) => client.peers.get(id)?.length === client.vectors);
    while (client.id === -1 || !isThere()) {
      const result = client.onReadable();
      if (result === 'end') throw new Error('the server has closed the connection');
      if (result === 'wait') await readable(client.socket.fd);
    }
  }

  async function leave(server: HostServer, client: OriginalClient): Promise<void> {
    const gone = occurrence(server, 'peer-gone');
    clients.delete(client);
    client.close();
    await gone;
  }

  /** Checks that each client's eventfds of a peer are those that the peer received as its own. */
  function expectDoorbells(...all: OriginalClient[]): void {
    for (const from of all) {
      for (const to of all) {
        for (let vector = 0; vector < to.vectors; vector++) {
          signalEventFd(from.peers.get(to.id)![vector]!);
          expect(drainEventFd(to.peers.get(to.id)![vector]!)).toBe(1n);
        }
      }
    }
  }

  it('receives INIT, the others in order, and its own eventfds last', async () => {
    const server = fixture.start({ maxPeers: 4, vectors: 3, protocol: 1, outputSectionSize: 0x1000 });
    const first = await connect(server);
    await readUntil(first, [0]);
    const second = await connect(server);
    await readUntil(second, [0, 1]);
    await readUntil(first, [0, 1]);
    expect([...second.peers.keys()]).toEqual([0, 1]);
    expect(second).toMatchObject({ id: 1, maxPeers: 4, vectors: 3, protocol: 1, outputSectionSize: 4096 });
    expect(second.memory!.length).toBe(4 << 20);
    expectDoorbells(first, second);
  });

  it('follows peers that connect and disconnect while it does not read', async () => {
    const server = fixture.start({ maxPeers: 6, vectors: 2 });
    const busy = await connect(server);
    await readUntil(busy, [0]);
    let departures = 0;
    for (let round = 0; round < 5; round++) {
      const others = [await connect(server), await connect(server), await connect(server)];
      // Two departures with no message in between, then an arrival at an ID that has just become free.
      await leave(server, others[1]!);
      await leave(server, others[0]!);
      departures += 2;
      const again = await connect(server);
      expect(again.id === -1 && others[2]!.id === -1).toBe(true);
      await readUntil(again, [0, 1, 3]);
      await readUntil(others[2]!, [0, 1, 3], 2);
      // Only now does it read.
      await readUntil(busy, [0, 1, 3], departures);
      expectDoorbells(busy, again, others[2]!);
      await leave(server, again);
      await leave(server, others[2]!);
      departures += 2;
      await readUntil(busy, [0], departures);
    }
    expect(server.waiting).toEqual({ messages: 0, bytes: 0 });
  });
});
