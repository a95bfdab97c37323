import { existsSync, ftruncateSync, writeSync } from 'node:fs';
import { closeFd } from '@ivshmem/linux';
import { mapShared } from '@ivshmem/linux/memory';
import { UnixSocket } from '@ivshmem/linux/socket';
import { drainEventFd, signalEventFd } from '@ivshmem/linux/wait';
import { take } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { eventText } from './events.ts';
import { occurrence, readable, useHostServers } from './strict-client.test-support.ts';

describe('host server', () => {
  const fixture = useHostServers();

  async function receiveHex(socket: UnixSocket, length: number): Promise<{ hex: string; fds: number }> {
    const bytes = new Uint8Array(length);
    const fds: number[] = [];
    for (let filled = 0; filled < length; ) {
      const received = socket.receive(bytes.subarray(filled), fds);
      if (received === 0) throw new Error('end');
      if (received === -1) await readable(socket.fd);
      else filled += received;
    }
    for (const fd of fds) closeFd(fd);
    expect(socket.receive(new Uint8Array(1), [])).toBe(-1);
    return { hex: Buffer.from(bytes).toString('hex'), fds: fds.length };
  }

  it('speaks the protocol byte for byte, in its order', async () => {
    fixture.start({ maxPeers: 3, vectors: 2, protocol: 1, size: 1 << 20, outputSectionSize: 0x10000 });
    const init = (id: string) =>
      `0000000028000000 0200000002000000 ${id}00000003000000 0200000001000000 0000010000000000`.replaceAll(
        ' ',
        '',
      );
    const event = (id: string, vector: string) => `0100000010000000${id}000000${vector}000000`;
    const first = UnixSocket.connect(fixture.socketPath);
    expect(await receiveHex(first, 40 + 2 * 16)).toEqual({
      hex: init('00') + event('00', '00') + event('00', '01'),
      fds: 3,
    });
    const second = UnixSocket.connect(fixture.socketPath);
    expect(await receiveHex(second, 40 + 4 * 16)).toEqual({
      hex: init('01') + event('00', '00') + event('00', '01') + event('01', '00') + event('01', '01'),
      fds: 5,
    });
    expect(await receiveHex(first, 2 * 16)).toEqual({ hex: event('01', '00') + event('01', '01'), fds: 2 });
    first.close();
    expect(await receiveHex(second, 12)).toEqual({ hex: '020000000c00000000000000', fds: 0 });
    second.close();
  });

  it('sends eventfds that interrupt the right peer and vector', async () => {
    fixture.start({ vectors: 3 });
    const a = await fixture.join(3, []);
    const b = await fixture.join(3, [0]);
    await a.expectPeer(1, 3);
    signalEventFd(a.fds.get('1.2')!);
    signalEventFd(b.fds.get('0.1')!);
    expect([0, 1, 2].map((v) => drainEventFd(b.fds.get(`1.${v}`)!))).toEqual([0n, 0n, 1n]);
    expect([0, 1, 2].map((v) => drainEventFd(a.fds.get(`0.${v}`)!))).toEqual([0n, 1n, 0n]);
  });

  it('assigns the lowest free ID, and closes the connection if there is none', async () => {
    const server = fixture.start({ maxPeers: 3 });
    const [a, b, c] = [await fixture.join(1, []), await fixture.join(1, [0]), await fixture.join(1, [0, 1])];
    expect([a.id, b.id, c.id]).toEqual([0, 1, 2]);
    const refused = occurrence(server, 'refused');
    await fixture.connect().expectEnd();
    expect(await refused).toMatchObject({ reason: 'all 3 IDs are taken', credentials: { pid: process.pid } });
    expect(server.peers.map(({ id, pid }) => [id, pid])).toEqual([0, 1, 2].map((id) => [id, process.pid]));
    b.close();
    await a.expectPeer(1, 1);
    await a.expectPeer(2, 1);
    await a.expectGone(1);
    expect((await fixture.join(1, [0, 2])).id).toBe(1);
    await a.expectPeer(1, 1);
  });

  it('makes peer 0 the back end in virtio protocols', async () => {
    const server = fixture.start({ protocol: 0x8003 });
    await fixture.connect().expectInit({ id: 0, protocol: 0xc003 });
    await fixture.connect().expectInit({ id: 1, protocol: 0x8003 });
    server.close();
    fixture.start({ protocol: 0xc003 });
    await fixture.connect().expectInit({ id: 0, protocol: 0xc003 });
    await fixture.connect().expectInit({ id: 1, protocol: 0x8003 });
  });

  it('seals its memory, so that clients cannot truncate it', async () => {
    fixture.start();
    const a = await fixture.join(1, []);
    expect(() => ftruncateSync(a.memory, 0)).toThrow('EPERM');
    expect(() => ftruncateSync(a.memory, 1 << 30)).toThrow('EPERM');
  });

  it('accepts only allowed clients', async () => {
    const server = fixture.start({ allow: ({ uid }) => uid === 4711 });
    const refused = occurrence(server, 'refused');
    await fixture.connect().expectEnd();
    expect(await refused).toMatchObject({
      cause: 'not-allowed',
      reason: `uid ${process.getuid!()}, gid ${process.getgid!()} is not allowed`,
    });
  });

  it('close() disconnects all clients, whose memory and doorbells keep working', async () => {
    const server = fixture.start({ size: 8192 });
    const snapshots: number[] = [];
    let complete = false;
    server.peers$.subscribe({
      next: (peers) => snapshots.push(peers.length),
      complete: () => (complete = true),
    });
    const a = await fixture.join(1, []);
    const b = await fixture.join(1, [0]);
    await a.expectPeer(1, 1);
    writeSync(a.memory, Uint8Array.of(3), 0, 1, 0);
    server.close();
    server.close();
    expect(await server.closed).toBeNull();
    await a.expectEnd();
    await b.expectEnd();
    expect(existsSync(fixture.socketPath)).toBe(false);
    expect(snapshots).toEqual([0, 1, 2, 0]);
    expect(complete).toBe(true);
    using mapping = mapShared(b.memory, 8192);
    expect(new Uint32Array(mapping.buffer)[0]).toBe(3);
    signalEventFd(a.fds.get('1.0')!);
    expect(drainEventFd(b.fds.get('1.0')!)).toBe(1n);
    expect(server.peers).toEqual([]);
  });

  it('events$ begins with where the server listens for each subscriber, and ends with the server', async () => {
    const seen: string[] = [];
    {
      await using server = fixture.start();
      server.events$.subscribe({
        next: ({ type }) => seen.push(type),
        complete: () => seen.push('complete'),
      });
      await fixture.join(1, []);
      server.events$.pipe(take(1)).subscribe((event) => seen.push(eventText(event)));
    }
    const listening = expect.stringMatching(/^listening at \S+: \d+ bytes, sealed memfd$/);
    expect(seen).toEqual(['listening', 'peer-joined', listening, 'closed', 'complete']);
  });

  it('fails if another server is running there, which is not disturbed', async () => {
    const server = fixture.start();
    const a = await fixture.join(1, []);
    expect(() => fixture.start()).toThrow('another server answers there');
    expect(server.peers).toHaveLength(1);
    expect(a.connection.read()).toBe('wait');
  });
});
