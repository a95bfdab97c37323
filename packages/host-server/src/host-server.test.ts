import {
  existsSync,
  fstatSync,
  ftruncateSync,
  mkdtempSync,
  readdirSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import {
  closeFd,
  drainEventFd,
  EPOLLIN,
  mainPoller,
  mapShared,
  signalEventFd,
  UnixSocket,
} from '@ivshmem/linux';
import { type ReceivedMessage, ServerConnection } from '@ivshmem/transport';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { HostServerEvent } from './events.ts';
import { createHostServer, type HostServer, type HostServerOptions } from './host-server.ts';

const openFds = () => readdirSync('/proc/self/fd').length;

/** Resolves when there is something to read, or the end of it. */
function readable(fd: number): Promise<void> {
  return new Promise((resolve) => {
    mainPoller.add(fd, EPOLLIN, () => {
      mainPoller.remove(fd);
      resolve();
    });
  });
}

async function next(connection: ServerConnection): Promise<ReceivedMessage | 'end'> {
  for (;;) {
    const read = connection.read();
    if (read !== 'wait') return read;
    await readable(connection.fd);
  }
}

/** A client that takes no message but the one that is due. */
class StrictClient {
  readonly connection: ServerConnection;
  readonly fds = new Map<string, number>();
  id = -1;
  memory = -1;

  constructor(path: string) {
    this.connection = ServerConnection.connect(path);
  }

  async expectInit(fields: object): Promise<void> {
    const read = await next(this.connection);
    if (read === 'end' || read.message.type !== 'init') throw new Error(`no INIT: ${JSON.stringify(read)}`);
    expect(read.message).toMatchObject(fields);
    this.id = read.message.id;
    this.memory = read.fd!;
  }

  /** EVENT_FD messages of one peer, vectors in order. */
  async expectPeer(id: number, vectors: number): Promise<void> {
    for (let vector = 0; vector < vectors; vector++) {
      const read = await next(this.connection);
      if (read === 'end') throw new Error('end');
      expect(read.message).toEqual({ type: 'event-fd', id, vector });
      const old = this.fds.get(`${id}.${vector}`);
      if (old !== undefined) closeFd(old);
      this.fds.set(`${id}.${vector}`, read.fd!);
    }
  }

  async expectGone(id: number): Promise<void> {
    expect(await next(this.connection)).toEqual({ message: { type: 'peer-gone', id }, fd: null });
  }

  async expectEnd(): Promise<void> {
    expect(await next(this.connection)).toBe('end');
  }

  /** Disconnects, and keeps what it has been given. */
  disconnect(): void {
    this.connection.close();
  }

  close(): void {
    this.connection.close();
    for (const fd of this.fds.values()) closeFd(fd);
    if (this.memory !== -1) closeFd(this.memory);
    this.fds.clear();
    this.memory = -1;
  }
}

function occurrence<T extends HostServerEvent['type']>(
  server: HostServer,
  type: T,
): Promise<HostServerEvent> {
  return new Promise((resolve) => {
    const subscription = server.events$.subscribe((event) => {
      if (event.type !== type) return;
      queueMicrotask(() => subscription.unsubscribe());
      resolve(event);
    });
  });
}

describe('host server', () => {
  let directory: string;
  let socketPath: string;
  let before: number;
  const servers: HostServer[] = [];
  const clients: StrictClient[] = [];

  beforeAll(async () => {
    // The poller's own descriptors, which it keeps.
    const [a, b] = UnixSocket.pair();
    a.send(Uint8Array.of(1));
    await readable(b.fd);
    a.close();
    b.close();
  });

  beforeEach(() => {
    directory = mkdtempSync('/tmp/host-server-');
    socketPath = join(directory, 'socket');
    before = openFds();
  });

  afterEach(() => {
    for (const client of clients.splice(0)) client.close();
    for (const server of servers.splice(0)) server.close();
    expect(openFds()).toBe(before);
    expect(readdirSync(directory)).toEqual([]);
    rmSync(directory, { recursive: true });
  });

  function start(options: HostServerOptions = {}): HostServer {
    const server = createHostServer({ socketPath, ...options });
    servers.push(server);
    return server;
  }

  function connect(): StrictClient {
    const client = new StrictClient(socketPath);
    clients.push(client);
    return client;
  }

  /** A client that has been let in, with all peers (by ID) that it was told of. */
  async function join_(vectors: number, others: number[]): Promise<StrictClient> {
    const client = connect();
    await client.expectInit({});
    for (const id of others) await client.expectPeer(id, vectors);
    await client.expectPeer(client.id, vectors);
    return client;
  }

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
    start({ maxPeers: 3, vectors: 2, protocol: 1, size: 1 << 20, outputSectionSize: 0x10000 });
    const init = (id: string) =>
      `0000000028000000 0200000002000000 ${id}00000003000000 0200000001000000 0000010000000000`.replaceAll(
        ' ',
        '',
      );
    const event = (id: string, vector: string) => `0100000010000000${id}000000${vector}000000`;
    const first = UnixSocket.connect(socketPath);
    expect(await receiveHex(first, 40 + 2 * 16)).toEqual({
      hex: init('00') + event('00', '00') + event('00', '01'),
      fds: 3,
    });
    const second = UnixSocket.connect(socketPath);
    expect(await receiveHex(second, 40 + 4 * 16)).toEqual({
      hex: init('01') + event('00', '00') + event('00', '01') + event('01', '00') + event('01', '01'),
      fds: 5,
    });
    expect(await receiveHex(first, 2 * 16)).toEqual({ hex: event('01', '00') + event('01', '01'), fds: 2 });
    first.close();
    expect(await receiveHex(second, 12)).toEqual({ hex: '020000000c00000000000000', fds: 0 });
    second.close();
  });

  it('hands out eventfds that reach the peer and vector they stand for', async () => {
    start({ vectors: 3 });
    const a = await join_(3, []);
    const b = await join_(3, [0]);
    await a.expectPeer(1, 3);
    signalEventFd(a.fds.get('1.2')!);
    signalEventFd(b.fds.get('0.1')!);
    expect([0, 1, 2].map((v) => drainEventFd(b.fds.get(`1.${v}`)!))).toEqual([0n, 0n, 1n]);
    expect([0, 1, 2].map((v) => drainEventFd(a.fds.get(`0.${v}`)!))).toEqual([0n, 1n, 0n]);
  });

  it('gives the lowest free ID, and closes the connection where there is none', async () => {
    const server = start({ maxPeers: 3 });
    const [a, b, c] = [await join_(1, []), await join_(1, [0]), await join_(1, [0, 1])];
    expect([a.id, b.id, c.id]).toEqual([0, 1, 2]);
    const refused = occurrence(server, 'refused');
    await connect().expectEnd();
    expect(await refused).toMatchObject({ reason: 'all 3 IDs are taken', credentials: { pid: process.pid } });
    expect(server.peers.map(({ id, pid }) => [id, pid])).toEqual([0, 1, 2].map((id) => [id, process.pid]));
    b.close();
    await a.expectPeer(1, 1);
    await a.expectPeer(2, 1);
    await a.expectGone(1);
    expect((await join_(1, [0, 2])).id).toBe(1);
    await a.expectPeer(1, 1);
  });

  it('tells back end from front end in virtio protocols', async () => {
    start({ protocol: 0x8003 });
    await connect().expectInit({ id: 0, protocol: 0xc003 });
    await connect().expectInit({ id: 1, protocol: 0x8003 });
    servers.splice(0)[0]!.close();
    start({ protocol: 0xc003 });
    await connect().expectInit({ id: 0, protocol: 0xc003 });
    await connect().expectInit({ id: 1, protocol: 0x8003 });
  });

  it('takes the state to 0 and clears the section of a departed peer before the others are told', async () => {
    const server = start({ size: 1 << 16, outputSectionSize: 0x4000 });
    const a = await join_(1, []);
    const b = await join_(1, [0]);
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
    expect(seen.subarray(4096, sectionB).every((byte) => byte === 0x55)).toBe(true);
    expect(seen.subarray(sectionB).every((byte) => byte === 0)).toBe(true);
    // The departed still has the memory. Its successor is not to find what it writes there.
    writeSync(b.memory, new Uint8Array(0x4000).fill(0x66), 0, 0x4000, sectionB);
    writeSync(b.memory, Uint8Array.of(9), 0, 1, 4);
    await join_(1, [0]);
    readSync(a.memory, seen, 0, seen.length, 0);
    expect(seen[4]).toBe(0);
    expect(seen.subarray(sectionB).every((byte) => byte === 0)).toBe(true);
  });

  it('clears a section of gigabytes without touching its pages', async () => {
    const server = start({ size: 2 ** 36, outputSectionSize: 2 ** 34 });
    const a = await join_(1, []);
    const offset = server.layout.outputOffset;
    writeSync(a.memory, Uint8Array.of(1), 0, 1, offset + 2 ** 33);
    const gone = occurrence(server, 'peer-gone');
    a.disconnect();
    await gone;
    expect(fstatSync(a.memory).size).toBe(2 ** 36);
    expect(fstatSync(a.memory).blocks * 512).toBeLessThan(1 << 20);
  });

  it('takes whatever a client sends for its departure', async () => {
    const server = start();
    const socket = UnixSocket.connect(socketPath);
    await occurrence(server, 'peer-joined');
    const gone = occurrence(server, 'peer-gone');
    socket.send(Uint8Array.of(0));
    expect(await gone).toMatchObject({ id: 0, reason: 'it sent something, which no client does' });
    expect(server.peers).toEqual([]);
    socket.close();
  });

  it('delivers what waits about a peer that is gone already, eventfds included, before PEER_GONE', async () => {
    const server = start({ maxPeers: 3, vectors: 64 });
    const slow = await join_(64, []);
    const rounds = 10;
    for (let i = 0; i < rounds; i++) {
      const joined = occurrence(server, 'peer-joined');
      const passing = UnixSocket.connect(socketPath);
      await joined;
      const gone = occurrence(server, 'peer-gone');
      passing.close();
      await gone;
    }
    for (let i = 0; i < rounds; i++) {
      await slow.expectPeer(1, 64);
      expect(signalEventFd(slow.fds.get('1.63')!)).toBe(true);
      await slow.expectGone(1);
    }
    expect(slow.connection.read()).toBe('wait');
  });

  it('disconnects a client that does not read, and keeps no descriptor for it', async () => {
    const server = start({ maxPeers: 3, vectors: 64 });
    const stalled = UnixSocket.connect(socketPath);
    await occurrence(server, 'peer-joined');
    const good = await join_(64, [0]);
    const during = openFds();
    let evicted: HostServerEvent | undefined;
    server.events$.subscribe((event) => {
      if (event.type === 'peer-gone' && event.id === 0) evicted = event;
    });
    for (let i = 0; evicted === undefined && i < 100; i++) {
      const passing = UnixSocket.connect(socketPath);
      await good.expectPeer(2, 64);
      passing.close();
      // The eviction may come before or after the departure that it shows at.
      const gone = await next(good.connection);
      if (evicted === undefined) expect(gone).toMatchObject({ message: { type: 'peer-gone', id: 2 } });
      else expect(await next(good.connection)).toMatchObject({ message: { type: 'peer-gone' } });
    }
    expect(evicted).toMatchObject({
      id: 0,
      reason: expect.stringMatching(/^does not read: \d+ messages wait/),
    });
    stalled.close();
    expect(server.peers.map(({ id }) => id)).toEqual([good.id]);
    // Without the stalled client's two sockets and 64 eventfds; good now has those of the last passer-by.
    expect(openFds()).toBe(during - 2);
  });

  it('survives hundreds of connections that come and go, and ends where it began', async () => {
    const server = start({ maxPeers: 4, vectors: 2 });
    const resident = await join_(2, []);
    const during = openFds();
    for (let i = 0; i < 300; i++) {
      const guest = await join_(2, [0]);
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
    // Clients that are gone before they are let in.
    for (let i = 0; i < 50; i++) UnixSocket.connect(socketPath).close();
    const last = occurrence(server, 'peer-joined');
    const witness = connect();
    await last;
    await witness.expectInit({});
  });

  it('seals its memory: a client cannot take it from the others', async () => {
    start();
    const a = await join_(1, []);
    expect(() => ftruncateSync(a.memory, 0)).toThrow('EPERM');
    expect(() => ftruncateSync(a.memory, 1 << 30)).toThrow('EPERM');
  });

  it('lets in only who is allowed', async () => {
    const server = start({ allow: ({ uid }) => uid === 4711 });
    const refused = occurrence(server, 'refused');
    await connect().expectEnd();
    expect(await refused).toMatchObject({ reason: `uid ${process.getuid!()} is not allowed` });
  });

  it('close() ends all connections, and leaves clients their memory and doorbells', async () => {
    const server = start({ size: 8192 });
    const snapshots: number[] = [];
    let complete = false;
    server.peers$.subscribe({
      next: (peers) => snapshots.push(peers.length),
      complete: () => (complete = true),
    });
    const a = await join_(1, []);
    const b = await join_(1, [0]);
    await a.expectPeer(1, 1);
    writeSync(a.memory, Uint8Array.of(3), 0, 1, 0);
    server.close();
    server.close();
    await server.closed;
    await a.expectEnd();
    await b.expectEnd();
    expect(existsSync(socketPath)).toBe(false);
    expect(snapshots).toEqual([0, 1, 2, 0]);
    expect(complete).toBe(true);
    using mapping = mapShared(b.memory, 8192);
    expect(new Uint32Array(mapping.buffer)[0]).toBe(3);
    signalEventFd(a.fds.get('1.0')!);
    expect(drainEventFd(b.fds.get('1.0')!)).toBe(1n);
    expect(server.peers).toEqual([]);
  });

  it("refuses to take a living server's place, which does not notice", async () => {
    const server = start();
    const a = await join_(1, []);
    expect(() => start()).toThrow('another server answers there');
    expect(server.peers).toHaveLength(1);
    expect(a.connection.read()).toBe('wait');
  });
});
