import {
  existsSync,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { closeFd, duplicateFd } from '@ivshmem/linux';
import { createMemfd, StateMemory } from '@ivshmem/linux/memory';
import { isFileInUse } from '@ivshmem/linux/process';
import { UnixListener, UnixSocket } from '@ivshmem/linux/socket';
import { createEventFd, drainEventFd, signalEventFd } from '@ivshmem/linux/wait';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DescriptorBudget } from './descriptor-budget.ts';
import { eventText, type HostServerEvent } from './events.ts';
import type { HostServer, HostServerOptions } from './host-server.ts';
import { MemoryStore } from './memory-store.test-support.ts';
import { occurrence, type StrictClient, useHostServers } from './strict-client.test-support.ts';

describe('a server that continues with what an earlier one has left', () => {
  const fixture = useHostServers();
  let store: MemoryStore;
  let said: string[];

  beforeEach(() => {
    store = new MemoryStore();
    said = [];
  });
  afterEach(() => store.close());

  const log = (event: HostServerEvent) => said.push(eventText(event));
  function start(options: HostServerOptions = {}): HostServer {
    said = [];
    return fixture.start({ maxPeers: 4, vectors: 2, outputSectionSize: 4096, ...options, store, log });
  }

  /** Ends the server and starts the next one. `meanwhile`: what happens in between. */
  async function restart(
    server: HostServer,
    options: HostServerOptions = {},
    meanwhile: () => void = () => {},
  ): Promise<HostServer> {
    server.suspend();
    meanwhile();
    store = store.next();
    const next = start(options);
    await Promise.resolve();
    return next;
  }

  const silent = (...clients: StrictClient[]) =>
    expect(clients.map(({ connection }) => connection.read())).toEqual(clients.map(() => 'wait'));
  const section = (server: HostServer, id: number) => server.layout.outputOffset + id * 4096;
  const byteAt = (fd: number, offset: number) => {
    const byte = new Uint8Array(1);
    readSync(fd, byte, 0, 1, offset);
    return byte[0];
  };

  it('is not noticed by its clients', async () => {
    const first = start();
    const [a, b] = [await fixture.join(2, []), await fixture.join(2, [0])];
    await a.expectPeer(1, 2);
    writeSync(b.memory, Uint8Array.of(7), 0, 1, 4);
    const before = first.peers;
    const server = await restart(first);
    expect(said).toEqual([
      expect.stringMatching(/^listening at /),
      'continued after a restart: 2 peers still connected',
    ]);
    silent(a, b);
    expect(server.peers).toEqual(before);
    expect(server.peers.map(({ state }) => state)).toEqual([0, 7]);
    expect(isFileInUse(a.memory)).toBe(true);
    // It is in control of them.
    const c = await fixture.join(2, [0, 1]);
    for (const client of [a, b]) await client.expectPeer(2, 2);
    signalEventFd(c.fds.get('0.1')!);
    expect(drainEventFd(a.fds.get('0.1')!)).toBe(1n);
    const gone = occurrence(server, 'peer-gone');
    b.disconnect();
    expect(await gone).toMatchObject({ id: 1, since: before[1]!.since });
    for (const client of [a, c]) await client.expectGone(1);
    expect(byteAt(a.memory, 4)).toBe(0);
    server.close();
    for (const client of [a, c]) await client.expectEnd();
    expect([store.kept.size, isFileInUse(a.memory)]).toEqual([0, false]);
  });

  it('says when it stops what it leaves, and leaves the path where clients connect', async () => {
    const first = start();
    await fixture.join(2, []);
    first.suspend();
    expect(said.at(-1)).toBe('stopped: the next process continues with 1 peer');
    expect(await first.closed).toBeNull();
    expect(existsSync(fixture.socketPath)).toBe(true);
    store = store.next();
    start();
  });

  it('catches up with clients that have left, and that wait at the socket', async () => {
    const first = start();
    const [a, b] = [await fixture.join(2, []), await fixture.join(2, [0])];
    await a.expectPeer(1, 2);
    writeSync(b.memory, Uint8Array.of(9), 0, 1, section(first, 1));
    let waiting: StrictClient | undefined;
    const server = await restart(first, {}, () => {
      b.disconnect();
      waiting = fixture.connect();
    });
    await waiting!.expectInit({ id: 1 });
    for (const id of [0, 1]) await waiting!.expectPeer(id, 2);
    await a.expectGone(1);
    await a.expectPeer(1, 2);
    expect(server.peers.map(({ id }) => id)).toEqual([0, 1]);
    expect(byteAt(a.memory, section(server, 1))).toBe(0);
  });

  it('sends what a client has not read yet, and nothing twice', async () => {
    const first = start();
    const slow = await fixture.join(2, []);
    const passing = await fixture.join(2, [0]);
    const gone = occurrence(first, 'peer-gone');
    passing.disconnect();
    await gone;
    // Its announcement waits until PEER_GONE is read.
    const late = await fixture.join(2, [0]);
    let server = await restart(first);
    expect(server.peers[0]!.waiting).toBe(2);
    server = await restart(server);
    await slow.expectPeer(1, 2);
    await slow.expectGone(1);
    await slow.expectPeer(1, 2);
    silent(slow, late);
    expect(server.peers.map(({ waiting }) => waiting)).toEqual([0, 0]);
  });

  it('continues with a client that was accepted and sent nothing, and with one that was half told', async () => {
    const first = start();
    const a = await fixture.join(2, []);
    first.suspend();
    // As if it had been killed right after these steps.
    const [socket, end] = UnixSocket.pair();
    store.put('77', socket.fd);
    store.replace('77.0', createEventFd());
    socket.close();
    store = store.next();
    const server = start();
    await a.expectPeer(1, 2);
    expect(server.peers.map(({ id }) => id)).toEqual([0, 1]);
    const into = new Uint8Array(200);
    const fds: number[] = [];
    let length = 0;
    for (let read = 1; read > 0; length += Math.max(read, 0)) read = end.receive(into, fds);
    expect([length, fds.length]).toEqual([40 + 4 * 16, 5]);
    for (const fd of fds) closeFd(fd);
    end.close();
    await a.expectGone(1);
  });

  it('gives the next client of an ID a clean section, however often it was restarted', async () => {
    const first = start();
    const [a, b] = [await fixture.join(2, []), await fixture.join(2, [0])];
    await a.expectPeer(1, 2);
    const server = await restart(first);
    b.disconnect();
    await a.expectGone(1);
    writeSync(b.memory, Uint8Array.of(9), 0, 1, section(server, 1));
    const last = await restart(server);
    await fixture.join(2, [0]);
    expect(byteAt(a.memory, section(last, 1))).toBe(0);
  });

  it.each<[string, HostServerOptions]>([
    ['an unsealed memfd', { sharedMemory: { kind: 'memfd', seal: false } }],
    ['a POSIX object', { sharedMemory: { kind: 'posix', name: `continuation-${process.pid}` } }],
    ['a file', { sharedMemory: { kind: 'directory', path: '/tmp' } }],
  ])('has the same memory: %s', async (_what, options) => {
    const first = start(options);
    const a = await fixture.join(2, []);
    writeSync(a.memory, Uint8Array.of(5), 0, 1, 8192);
    const server = await restart(first, options);
    expect(said[1]).toBe('continued after a restart: 1 peer still connected');
    const b = await fixture.join(2, [0]);
    await a.expectPeer(1, 2);
    expect(fstatSync(b.memory).ino).toBe(fstatSync(a.memory).ino);
    expect(byteAt(b.memory, 8192)).toBe(5);
    expect(isFileInUse(a.memory)).toBe(true);
    server.close();
    expect(isFileInUse(a.memory)).toBe(false);
    expect(readdirSync('/dev/shm').filter((name) => name.includes(String(process.pid)))).toEqual([]);
  });

  it('lets the settings change that clients do not know', async () => {
    const first = start();
    const a = await fixture.join(2, []);
    const server = await restart(first, { mode: 0o666, evictAfter: 5, allow: () => false });
    silent(a);
    expect(lstatSync(fixture.socketPath).mode & 0o777).toBe(0o666);
    await fixture.connect().expectEnd();
    const elsewhere = `${fixture.socketPath}2`;
    await restart(server, { socketPath: elsewhere });
    expect([fixture.socketPath, elsewhere].map((path) => existsSync(path))).toEqual([false, true]);
    silent(a);
  });

  it('is at its path again if that was removed', async () => {
    const first = start();
    const a = await fixture.join(2, []);
    await restart(first, {}, () => rmSync(fixture.socketPath));
    await fixture.join(2, [0]);
    await a.expectPeer(1, 2);
  });

  it.each<[HostServerOptions, string]>([
    [{ vectors: 3 }, 'is of a server with vectors 2 instead of 3'],
    [{ maxPeers: 5, size: 1 << 23 }, 'with size 4194304 instead of 8388608, maxPeers 4 instead of 5'],
    [{ sharedMemory: { kind: 'memfd', seal: false } }, 'is of a server with other shared memory'],
  ])('begins anew with %o', async (options, reason) => {
    const first = start();
    const a = await fixture.join(2, []);
    await restart(first, options);
    await a.expectEnd();
    expect(said[1]).toMatch(
      /^warning: peers of the process before are disconnected, and get new memory: the stored state /,
    );
    expect(said[1]).toContain(reason);
    const b = fixture.connect();
    await b.expectInit({ id: 0, vectors: options.vectors ?? 2 });
    expect(fstatSync(b.memory).ino).not.toBe(fstatSync(a.memory).ino);
  });

  const wrong: [string, () => number][] = [
    ['a socket', () => aSocket()],
    ['an eventfd', createEventFd],
    ['a directory', () => openSync('/', 'r')],
    ['a device', () => openSync('/dev/zero', 'r+')],
    ['an empty memfd', () => createMemfd('ivshmem-test', 0)],
    ['a large memfd', () => createMemfd('ivshmem-test', 2 ** 33)],
    ['memory without seals', () => createMemfd('ivshmem-test', 1 << 22, { seal: false })],
  ];
  const aSocket = () => {
    const [a, b] = UnixSocket.pair();
    b.close();
    return a.fd;
  };

  it.each(['state', 'memory'].flatMap((name) => wrong.map(([what, make]) => [name, what, make] as const)))(
    'begins anew if the %s is %s',
    async (name, _what, make) => {
      const first = start();
      const a = await fixture.join(2, []);
      await restart(first, {}, () => store.replace(name, make()));
      expect(said[1]).toMatch(
        /^warning: peers of the process before are disconnected, and get new memory: the stored /,
      );
      expect(said.length).toBe(2);
      await a.expectEnd();
      await fixture.join(2, []);
    },
  );

  it.each(
    ['0', '0.1'].flatMap((name) =>
      [...wrong, ['nothing', () => -1] as const].map(([what, make]) => [name, what, make] as const),
    ),
  )('disconnects only the client whose descriptor %s is %s', async (name, what, make) => {
    const first = start();
    const [a, b] = [await fixture.join(2, []), await fixture.join(2, [0])];
    await a.expectPeer(1, 2);
    // Serials are 1 and 2.
    const full = name.replace('0', '2');
    if ((what === 'an eventfd' && full === '2.1') || (what === 'a socket' && full === '2')) return;
    const server = await restart(first, {}, () => {
      const fd = make();
      if (fd === -1) store.remove(full);
      else store.replace(full, fd);
    });
    await a.expectGone(1);
    await b.expectEnd();
    expect(said).toContain('peer 1 gone: disconnected during a restart of the server');
    expect(server.peers.map(({ id }) => id)).toEqual([0]);
    await fixture.join(2, [0]);
    await a.expectPeer(1, 2);
  });

  it.each<[string, () => number]>([
    ...wrong,
    ['a listener elsewhere', () => listener(`${fixture.socketPath}3`)],
  ])('listens anew if the listener is %s', async (_what, make) => {
    const first = start();
    const a = await fixture.join(2, []);
    await restart(first, {}, () => {
      const fd = make();
      store.replace('listener', fd);
    });
    silent(a);
    await fixture.join(2, [0]);
    await a.expectPeer(1, 2);
  });
  const listener = (path: string) => {
    const other = UnixListener.listen(path);
    const fd = duplicateFd(other.fd);
    other.leave();
    return fd;
  };

  it('survives any state: random bytes, in all of it or in a few places', async () => {
    let server = start();
    let continued = 0;
    for (let round = 0; round < 400; round++) {
      const clients = [fixture.connect(), fixture.connect()];
      await clients[1]!.expectInit({});
      server.suspend();
      const fd = duplicateFd(store.kept.get('state')!);
      const state = StateMemory.adopt(fd, 'server', 1) as StateMemory;
      const bytes = new Uint8Array(state.mapping.buffer);
      const random = (below: number) => Math.floor(Math.random() * below);
      if (round % 4 === 0) {
        for (let i = 64; i < bytes.length; i++) bytes[i] = random(256);
      } else {
        // Behind the settings, mostly: with others it begins anew.
        const from = round % 4 === 1 ? 0 : 64 + 128;
        for (let i = random(20); i >= 0; i--) {
          const word = from + 4 * random((bytes.length - from) / 4);
          new Uint32Array(state.mapping.buffer)[word / 4] = [0, 1, 2, 3, 4, 0xffffffff, random(2 ** 32)][
            random(7)
          ]!;
        }
      }
      state.close();
      store = store.next();
      server = start();
      await Promise.resolve();
      if (said[1]?.startsWith('continued')) continued++;
      for (const client of clients) client.close();
      // All earlier clients have been disconnected, and the server accepts new ones.
      const last = fixture.connect();
      await last.expectInit({});
      last.close();
      while (server.peers.length > 0) await occurrence(server, 'peer-gone');
    }
    expect(continued).toBeGreaterThan(50);
    expect(continued).toBeLessThan(350);
  });

  it('counts its descriptors', async () => {
    const budget = DescriptorBudget.ofProcess();
    const before = budget.left;
    const first = start({ budget });
    await fixture.join(2, []);
    const used = before - budget.left;
    const server = await restart(first, { budget });
    expect(before - budget.left).toBe(used);
    server.close();
    expect(budget.left).toBe(before);
    // Too few by now.
    const second = start({ budget });
    const a = await fixture.join(2, []);
    second.suspend();
    store = store.next();
    start({ budget: new DescriptorBudget(100, 100 - 64 - 5 - 2) });
    await a.expectEnd();
    expect(said).toContainEqual(
      expect.stringMatching(/^peer 0 gone: a peer needs 3 descriptors and 2 are left/),
    );
  });
});
