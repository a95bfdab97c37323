import { readdirSync } from 'node:fs';
import { closeFd } from '@ivshmem/linux';
import { openFilesLimit, setOpenFilesLimit } from '@ivshmem/linux/process';
import { UnixSocket } from '@ivshmem/linux/socket';
import { createEventFd, drainEventFd, EPOLLET, EPOLLOUT, signalEventFd } from '@ivshmem/linux/wait';
import { decodeServerMessage, encodeInit } from '@ivshmem/transport/protocol';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Client } from './client.ts';
import { DescriptorBudget } from './descriptor-budget.ts';
import { LinkState } from './link-state.ts';
import { completeSettings } from './options.ts';

const credentials = { pid: 1, uid: 0, gid: 0 };
const settings = completeSettings({ maxPeers: 8, vectors: 2 });
const openFds = () => readdirSync('/proc/self/fd').length;

describe('a client', () => {
  let before: number;
  let state: LinkState;
  let budget: DescriptorBudget;
  const peers = new Map<number, Client>();
  /** The other ends of the sockets. */
  const ends = new Map<Client, UnixSocket>();

  beforeEach(() => {
    before = openFds();
    state = LinkState.create(settings, false);
    budget = DescriptorBudget.ofProcess();
  });

  afterEach(() => {
    for (const [client, end] of ends) {
      client.close();
      end.close();
    }
    ends.clear();
    peers.clear();
    state.close();
    expect(openFds()).toBe(before);
  });

  function join(id: number): Client {
    const tenant = { serial: state.nextSerial(), credentials, since: new Date() };
    state.join(id, tenant);
    const [socket, end] = UnixSocket.pair();
    const { maxPeers, vectors, protocol, outputSectionSize } = settings;
    const bytes = encodeInit({ id, maxPeers, vectors, protocol, outputSectionSize });
    const events = [createEventFd(), createEventFd()];
    const parts = { ...tenant, id, socket, events, init: { bytes, fd: 0, about: null } };
    const client = new Client(parts, state, peers, budget);
    peers.set(id, client);
    ends.set(client, end);
    return client;
  }

  function leave(client: Client): void {
    peers.delete(client.id);
    state.leave(client.id);
    client.close();
    ends.get(client)!.close();
    ends.delete(client);
  }

  /** What the client receives, each message in a read(2) of its own, such as `init`, `3.0` or `gone 3`. */
  function received(client: Client): string[] {
    const seen: string[] = [];
    for (const into = new Uint8Array(64); ; client.flush()) {
      const fds: number[] = [];
      const length = ends.get(client)!.receive(into, fds);
      if (length <= 0) return seen;
      const message = decodeServerMessage(into.subarray(0, length));
      expect(fds).toHaveLength(message.type === 'peer-gone' ? 0 : 1);
      for (const fd of fds) closeFd(fd);
      if (message.type === 'init') seen.push('init');
      else seen.push(message.type === 'peer-gone' ? `gone ${message.id}` : `${message.id}.${message.vector}`);
    }
  }

  const notify = (client: Client, ...ids: number[]) => {
    for (const id of ids) client.notify(id);
    client.flush();
  };

  it('gets INIT first, then each vector once', () => {
    const [client] = [join(0), join(3)];
    notify(client, 3, 0);
    notify(client, 0, 3);
    expect(received(client)).toEqual(['init', '3.0', '3.1', '0.0', '0.1']);
    expect(client.waiting).toEqual({ messages: 0, bytes: 0 });
    expect([client.isBlocked, client.stalledSince]).toEqual([false, null]);
  });

  it('is not sent anything behind a message without a descriptor until it has read that', () => {
    const [client, peer] = [join(0), join(1)];
    notify(client, 1, 0);
    received(client);
    leave(peer);
    notify(client, 1);
    join(1);
    notify(client, 1);
    expect([client.isBlocked, client.retry, client.interest & (EPOLLOUT | EPOLLET)]).toEqual([
      true,
      true,
      // Bit 31 makes it a negative number.
      EPOLLOUT | EPOLLET,
    ]);
    expect(client.waiting).toEqual({ messages: 2, bytes: 32 });
    expect(received(client)).toEqual(['gone 1', '1.0', '1.1']);
  });

  it('is notified of the outcome only, if peers come and go while it does not read', () => {
    const [client, first] = [join(0), join(1)];
    notify(client, 1, 0);
    received(client);
    leave(first);
    notify(client, 1);
    for (let i = 0; i < 100; i++) {
      const passing = join(2);
      notify(client, 2);
      leave(passing);
      notify(client, 2);
      const successor = join(1);
      notify(client, 1);
      if (i === 99) break;
      leave(successor);
      notify(client, 1);
    }
    expect(client.waiting).toEqual({ messages: 2, bytes: 32 });
    expect(received(client)).toEqual(['gone 1', '1.0', '1.1']);
  });

  it('learns of a departure in the middle of an announcement', () => {
    const [client, peer] = [join(0), join(1)];
    notify(client, 0);
    received(client);
    // The first vector only, as if the socket had been full then.
    const about = { peer: 1, serial: peer.serial, vectors: 1 };
    state.send(client.socket.fd, 0, { bytes: peer.announcement[0]!, fd: 0, about });
    leave(peer);
    notify(client, 1);
    expect(received(client)).toEqual(['1.0', 'gone 1']);
    expect(client.waiting.messages).toBe(0);
  });

  it('fails if its connection is broken', () => {
    const client = join(0);
    ends.get(client)!.close();
    client.flush();
    expect(client.failure).toEqual({ cause: 'disconnected', reason: 'unreachable: EPIPE' });
  });

  it('waits until the socket is writable, and gets the rest then', () => {
    const client = join(0);
    client.flush();
    // A socket accepts some hundred messages of this size.
    let messages = 1;
    while (!client.isBlocked) {
      const peer = join(1 + (messages % 7));
      notify(client, peer.id);
      messages += 2;
      if (client.isBlocked) break;
      peers.delete(peer.id);
      peer.close();
      ends.get(peer)!.close();
      ends.delete(peer);
      // Forgotten rather than gone, so that all messages have descriptors.
      state.leave(peer.id);
      state.send(client.socket.fd, client.id, {
        bytes: Uint8Array.of(0),
        fd: 0,
        about: { peer: peer.id, serial: 0, vectors: 0 },
      });
    }
    expect(client.interest & EPOLLOUT).toBe(EPOLLOUT);
    expect(client.stalledSince).not.toBeNull();
  });

  it.runIf(process.geteuid?.() === 0)('is not evicted because others do not read', () => {
    const [hoarder, innocent] = [join(0), join(1)];
    // Many descriptors in flight, for which all users but root get ETOOMANYREFS.
    for (let i = 0; i < 150; i++) {
      state.send(hoarder.socket.fd, 0, { bytes: Uint8Array.of(0), fd: 0, about: null });
    }
    expect(hoarder.stalledSince).toBeNull();
    const { soft } = openFilesLimit();
    setOpenFilesLimit(100);
    process.seteuid!(65534);
    try {
      for (const client of [hoarder, innocent]) notify(client, client.id);
    } finally {
      process.seteuid!(0);
      setOpenFilesLimit(soft);
    }
    expect([hoarder.retry, innocent.retry]).toEqual([true, true]);
    const later = performance.now() + 60_000;
    expect([hoarder.isStalled(later, 30_000), innocent.isStalled(later, 30_000)]).toEqual([true, false]);
    // Closing the other end releases the descriptors in flight.
    leave(hoarder);
    innocent.flush();
    expect([innocent.waiting.messages, innocent.stalledSince]).toEqual([0, null]);
    expect(received(innocent)).toEqual(['init', '1.0', '1.1']);
  });

  it('is announced with eventfds that interrupt it', () => {
    const [client, peer] = [join(0), join(1)];
    notify(client, 1);
    const fds: number[] = [];
    const into = new Uint8Array(64);
    while (ends.get(client)!.receive(into, fds) > 0);
    signalEventFd(fds[2]!);
    expect(peer.events.map((event) => drainEventFd(event))).toEqual([0n, 1n]);
    for (const fd of fds) closeFd(fd);
  });
});
