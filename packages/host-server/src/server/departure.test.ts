import { fstatSync, readSync, writeSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { closeFd } from '@ivshmem/linux';
import { UnixSocket } from '@ivshmem/linux/socket';
import { drainEventFd, signalEventFd } from '@ivshmem/linux/wait';
import { describe, expect, it } from 'vitest';
import { occurrence, openFds, type StrictClient, useHostServers } from './strict-client.test-support.ts';

describe('departure of a peer', () => {
  const fixture = useHostServers();

  it('sets the state to 0 before the others are notified, and clears the section before the ID is reused', async () => {
    const server = fixture.start({ size: 1 << 16, outputSectionSize: 0x4000 });
    const a = await fixture.join(1, []);
    const b = await fixture.join(1, [0]);
    await a.expectPeer(1, 1);
    const { outputOffset, readWriteOffset } = server.layout;
    const sectionB = outputOffset + 0x4000;
    writeSync(b.memory, new Uint8Array(0x10000 - 4096).fill(0x55), 0, 0x10000 - 4096, readWriteOffset);
    writeSync(b.memory, Uint8Array.of(3, 0, 0, 0, 7, 0, 0, 0), 0, 8, 0);
    expect(server.peers.map(({ state }) => state)).toEqual([3, 7]);
    b.disconnect();
    await a.expectGone(1);
    const seen = new Uint8Array(0x10000);
    readSync(a.memory, seen, 0, seen.length, 0);
    expect([...seen.subarray(0, 8)]).toEqual([3, 0, 0, 0, 0, 0, 0, 0]);
    // The others may still be reading frames there.
    expect(seen.subarray(4096).every((byte) => byte === 0x55)).toBe(true);
    // The departed peer can still write. The next peer with its ID must not see that.
    writeSync(b.memory, new Uint8Array(0x4000).fill(0x66), 0, 0x4000, sectionB);
    writeSync(b.memory, Uint8Array.of(9), 0, 1, 4);
    await fixture.join(1, [0]);
    readSync(a.memory, seen, 0, seen.length, 0);
    expect(seen[4]).toBe(0);
    expect(seen.subarray(4096, sectionB).every((byte) => byte === 0x55)).toBe(true);
    expect(seen.subarray(sectionB).every((byte) => byte === 0)).toBe(true);
  });

  it('clears the whole memory for the next peer once all have left, whatever those write later', async () => {
    const server = fixture.start({ size: 1 << 16, outputSectionSize: 0x4000 });
    const everything = new Uint8Array(1 << 16);
    const found = (memory: number) => {
      readSync(memory, everything, 0, everything.length, 0);
      return everything.some((byte) => byte !== 0);
    };
    const leave = async (client: StrictClient) => {
      const gone = occurrence(server, 'peer-gone');
      client.disconnect();
      await gone;
    };
    const [a, b] = [await fixture.join(1, []), await fixture.join(1, [0])];
    await leave(a);
    await leave(b);
    // They still have it mapped and can write anywhere.
    writeSync(b.memory, everything.fill(0x55), 0, everything.length, 0);
    const c = await fixture.join(1, []);
    expect(found(c.memory)).toBe(false);
    writeSync(b.memory, new Uint8Array(0x4000).fill(0x55), 0, 0x4000, server.layout.outputOffset + 0x4000);
    const d = await fixture.join(1, [0]);
    expect(found(d.memory)).toBe(false);
  });

  it('clears a section of gigabytes without touching its pages', async () => {
    const server = fixture.start({ size: 2 ** 36, outputSectionSize: 2 ** 34 });
    const a = await fixture.join(1, []);
    const offset = server.layout.outputOffset;
    writeSync(a.memory, Uint8Array.of(1), 0, 1, offset + 2 ** 33);
    const gone = occurrence(server, 'peer-gone');
    a.disconnect();
    await gone;
    await fixture.join(1, []);
    const byte = new Uint8Array(1);
    readSync(a.memory, byte, 0, 1, offset + 2 ** 33);
    expect(byte[0]).toBe(0);
    expect(fstatSync(a.memory).size).toBe(2 ** 36);
    expect(fstatSync(a.memory).blocks * 512).toBeLessThan(1 << 20);
  });

  it('disconnects a client that sends anything', async () => {
    const server = fixture.start();
    const socket = UnixSocket.connect(fixture.socketPath);
    await occurrence(server, 'peer-joined');
    const gone = occurrence(server, 'peer-gone');
    socket.send(Uint8Array.of(0));
    expect(await gone).toMatchObject({ id: 0, reason: 'sent data, which the protocol does not allow' });
    expect(server.peers).toEqual([]);
    socket.close();
  });

  it('of a peer that has come while a client did not read is nothing to notify that of', async () => {
    const server = fixture.start({ maxPeers: 4, vectors: 64 });
    const slow = await fixture.join(64, []);
    const pass = async () => {
      const joined = occurrence(server, 'peer-joined');
      const passing = UnixSocket.connect(fixture.socketPath);
      await joined;
      const gone = occurrence(server, 'peer-gone');
      passing.close();
      await gone;
    };
    await pass();
    // What is sent behind the first PEER_GONE waits for the client.
    for (let i = 0; i < 20; i++) await pass();
    const last = await fixture.join(64, [0]);
    expect(server.peers[0]!.waiting).toBe(64);
    await slow.expectPeer(1, 64);
    await slow.expectGone(1);
    await slow.expectPeer(1, 64);
    expect(signalEventFd(slow.fds.get('1.63')!)).toBe(true);
    expect(drainEventFd(last.fds.get('1.63')!)).toBe(1n);
    expect(slow.connection.read()).toBe('wait');
  });

  it('leaks nothing over hundreds of connections', async () => {
    const server = fixture.start({ maxPeers: 4, vectors: 2 });
    const resident = await fixture.join(2, []);
    const during = openFds();
    for (let i = 0; i < 300; i++) {
      const guest = await fixture.join(2, [0]);
      expect(guest.id).toBe(1);
      guest.close();
      await resident.expectPeer(1, 2);
      await resident.expectGone(1);
    }
    for (const key of ['1.0', '1.1']) {
      closeFd(resident.fds.get(key)!);
      resident.fds.delete(key);
    }
    expect(openFds()).toBe(during);
    // Clients that disconnect before they are accepted.
    for (let i = 0; i < 50; i++) UnixSocket.connect(fixture.socketPath).close();
    const last = occurrence(server, 'peer-joined');
    const witness = fixture.connect();
    await last;
    await witness.expectInit({});
  });

  it('evicts a client that leaves its messages unread for too long, and keeps the others', async () => {
    const server = fixture.start({ maxPeers: 3, evictAfter: 1 });
    const stalled = UnixSocket.connect(fixture.socketPath);
    await occurrence(server, 'peer-joined');
    const reader = await fixture.join(1, [0]);
    const idle = await fixture.join(1, [0, 1]);
    await reader.expectPeer(2, 1);
    // An arrival is pending behind an unread departure.
    const gone = occurrence(server, 'peer-gone');
    idle.disconnect();
    await gone;
    const start = performance.now();
    await fixture.join(1, [0, 1]);
    await reader.expectGone(2);
    await reader.expectPeer(2, 1);
    expect(await occurrence(server, 'peer-gone')).toMatchObject({
      id: 0,
      cause: 'not-reading',
      reason: 'not reading: 1 messages pending for 1 s',
    });
    expect(performance.now() - start).toBeGreaterThan(900);
    await reader.expectGone(0);
    expect(server.peers.map(({ id }) => id)).toEqual([1, 2]);
    stalled.close();
  });

  it('keeps a client without pending messages, however long', async () => {
    const server = fixture.start({ evictAfter: 1 });
    const idle = UnixSocket.connect(fixture.socketPath);
    await occurrence(server, 'peer-joined');
    await delay(1500);
    expect(server.peers).toHaveLength(1);
    idle.close();
  });

  it('does not announce a client that disconnects or sends data before it is accepted', async () => {
    const server = fixture.start({ maxPeers: 3 });
    const resident = await fixture.join(1, []);
    // Both stay in the backlog until the event loop polls.
    const dead = UnixSocket.connect(fixture.socketPath);
    dead.close();
    const chatty = UnixSocket.connect(fixture.socketPath);
    chatty.send(Uint8Array.of(0));
    const reasons: string[] = [];
    server.events$.subscribe((event) => event.type === 'refused' && reasons.push(event.reason));
    await fixture.join(1, [0]);
    await resident.expectPeer(1, 1);
    expect(resident.connection.read()).toBe('wait');
    expect(reasons).toEqual(['already disconnected', 'sent data, which the protocol does not allow']);
    chatty.close();
  });
});
