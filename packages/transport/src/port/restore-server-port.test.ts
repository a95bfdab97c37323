import { closeSync, mkdtempSync, openSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { closeFd } from '@ivshmem/linux';
import { createMemfd, StateMemory } from '@ivshmem/linux/memory';
import {
  DescriptorKeeper,
  type DescriptorStore,
  descriptorStoreOf,
  markFileInUse,
  NotifySocket,
} from '@ivshmem/linux/process';
import { UnixListener, type UnixSocket } from '@ivshmem/linux/socket';
import { createEventFd, drainEventFd, Epoll, signalEventFd } from '@ivshmem/linux/wait';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { encodeEventFd, encodeInit, encodePeerGone } from '../protocol/server-messages.ts';
import { openServerPort } from './open-server-port.ts';
import type { PortEvent } from './port.ts';
import { restoreServerPort } from './restore-server-port.ts';
import type { ServerPort } from './server-port.ts';
import { ServerTrust } from './server-trust.ts';

const openFds = () => readdirSync('/proc/self/fd').length;
const VECTORS = 2;
const SIZE = 0x1000 + 3 * 0x1000;
const identity = { id: 1, maxPeers: 3, vectors: VECTORS, protocol: 1, outputSectionSize: 0x1000 };

describe('a port that is kept in a descriptor store', () => {
  let before: number;
  let directory: string;
  let path: string;
  let notify: NotifySocket;
  let keeper: DescriptorKeeper;
  let poller: Epoll;
  let memory: number;
  let eventFds: number[][];
  let server: UnixSocket;
  let port: ServerPort | undefined;
  let log: string[];

  beforeEach(() => {
    before = openFds();
    directory = mkdtempSync('/tmp/ivshmem-port-');
    path = join(directory, 'socket');
    notify = NotifySocket.listen(join(directory, 'notify'));
    keeper = new DescriptorKeeper(100);
    poller = new Epoll();
    memory = createMemfd('ivshmem-test', SIZE);
    eventFds = [0, 1, 2].map(() => [createEventFd(), createEventFd()]);
    log = [];
    port = undefined;
  });
  afterEach(() => {
    port?.close();
    server.close();
    keeper.close();
    notify.close();
    for (const fd of [memory, ...eventFds.flat()]) closeFd(fd);
    expect(poller.size).toBe(0);
    poller.close();
    rmSync(directory, { recursive: true });
    expect(openFds()).toBe(before);
  });

  const settle = () => {
    while (poller.wait(0) > 0);
  };
  const sendVector = (peer: number, vector: number, fd = eventFds[peer]![vector]!) =>
    server.send(encodeEventFd(peer, vector), [fd]);
  const sendPeer = (peer: number) => {
    for (let vector = 0; vector < VECTORS; vector++) sendVector(peer, vector);
  };
  /** The service manager handles what it was sent. */
  const manage = () => {
    for (let message = notify.receive(); message !== null; message = notify.receive()) keeper.handle(message);
  };
  const names = () => {
    manage();
    return keeper.kept.map(({ name }) => name.replace('ivshmem/', '')).sort();
  };
  /** The store of a process. The service manager reads at once: the kernel holds ten messages for it, or a few hundred. */
  function storeOf(left = keeper.duplicates()): DescriptorStore {
    const store = descriptorStoreOf({ socket: notify.path, prefix: 'ivshmem/', left });
    const { put, remove } = store;
    return Object.assign(store, {
      put(name: string, fd: number) {
        put.call(store, name, fd);
        manage();
      },
      remove(name: string) {
        remove.call(store, name);
        manage();
      },
    });
  }
  const eventsOf = (port: ServerPort): PortEvent[] => {
    const events: PortEvent[] = [];
    port.onEvent((event) => events.push(event));
    return events;
  };

  /** A port of peer 1 that is kept, with peer 0. */
  function keep(): ServerPort {
    using listener = UnixListener.listen(path);
    openServerPort(path, poller, (result) => {
      port = result as ServerPort;
    });
    server = listener.accept()!;
    server.send(encodeInit(identity), [memory]);
    sendPeer(0);
    sendPeer(1);
    settle();
    port!.keep(storeOf([]), (line) => log.push(line));
    return port!;
  }

  /** What the process leaves that is killed now. */
  function leave(): void {
    port!.detach();
    port!.close();
    port = undefined;
    manage();
  }

  const restore = (from = path) =>
    restoreServerPort(storeOf(), from, poller, new ServerTrust(), (line) => log.push(line));

  function restored(): ServerPort {
    const result = restore();
    if (result === null || typeof result === 'string') throw new Error(`not restored: ${result}`);
    port = result;
    return port;
  }

  it('continues with ID, state, memory and doorbells, and the server does not notice', () => {
    keep().state = 3;
    expect(names()).toEqual([
      'eventfd.0.0',
      'eventfd.0.1',
      'eventfd.1.0',
      'eventfd.1.1',
      'memory',
      'server',
      'state',
    ]);
    new Uint32Array(port!.output!.buffer)[5] = 77;
    leave();
    drainEventFd(eventFds[0]![0]!);
    const next = restored();
    expect(next).toMatchObject({ id: 1, maxPeers: 3, vectors: 2, protocol: 1, state: 3, connected: true });
    expect(new Uint32Array(next.output!.buffer)[5]).toBe(77);
    expect(next.ring(0, 1)).toBe(true);
    expect(eventFds[0]!.map((fd) => Number(drainEventFd(fd)))).toEqual([0, 1]);
    expect(server.peek()).toBe('nothing');
    const interrupts: number[] = [];
    next.onInterrupt((vector) => interrupts.push(vector));
    signalEventFd(eventFds[1]![1]!);
    settle();
    expect([interrupts, log]).toEqual([[1], []]);
  });

  it('handles interrupts and messages that arrived in between', () => {
    keep();
    leave();
    signalEventFd(eventFds[1]![1]!);
    sendPeer(2);
    server.send(encodePeerGone(0));
    const next = restored();
    const events = eventsOf(next);
    const interrupts: number[] = [];
    next.onInterrupt((vector) => interrupts.push(vector));
    settle();
    expect(events).toEqual([
      { type: 'peer-joined', peer: 2 },
      { type: 'peer-gone', peer: 0 },
    ]);
    expect(interrupts.sort()).toEqual([0, 1]);
    expect(names()).toEqual([
      'eventfd.1.0',
      'eventfd.1.1',
      'eventfd.2.0',
      'eventfd.2.1',
      'memory',
      'server',
      'state',
    ]);
  });

  it('applies a message once that was stored, but not read', () => {
    keep();
    sendVector(2, 0);
    settle();
    leave();
    // Killed after the eventfd was stored, with the message still in the socket.
    sendVector(2, 1);
    storeOf([]).put('eventfd.2.1', eventFds[2]![1]!);
    manage();
    const next = restored();
    const events = eventsOf(next);
    settle();
    expect([events, next.ring(2, 1), names().length]).toEqual([[], true, 9]);
    leave();
    // Killed after the first of two eventfds was removed.
    server.send(encodePeerGone(2));
    storeOf([]).remove('eventfd.2.1');
    manage();
    const last = restored();
    settle();
    expect([last.ring(2, 0), names().length]).toEqual([false, 7]);
    sendPeer(2);
    settle();
    expect(last.ring(2, 1)).toBe(true);
  });

  it('assembles a message of which a part had arrived', () => {
    keep();
    const message = encodeEventFd(2, 0);
    server.send(message.subarray(0, 5));
    settle();
    server.send(message.subarray(5, 9), [eventFds[2]![0]!]);
    settle();
    leave();
    server.send(message.subarray(9));
    const next = restored();
    sendVector(2, 1);
    const events = eventsOf(next);
    settle();
    expect(events).toEqual([{ type: 'peer-joined', peer: 2 }]);
    expect(next.ring(2, 1)).toBe(true);
  });

  it('reads a flood of messages without starving others', () => {
    const events = eventsOf(keep());
    for (let i = 0; i < 40; i++) {
      sendPeer(0 + 2);
      server.send(encodePeerGone(2));
    }
    poller.wait(0);
    expect(events.length).toBeLessThan(80);
    settle();
    expect(events).toHaveLength(80);
    expect(names()).toHaveLength(7);
  });

  it('is removed from the store when it is closed', () => {
    keep().close();
    expect(names()).toEqual([]);
    expect(restore()).toBeNull();
  });

  it('stays usable without its server', () => {
    markFileInUse(memory);
    keep().state = 3;
    closeFd(memory);
    memory = createEventFd();
    server.close();
    settle();
    expect(names()).not.toContain('server');
    leave();
    const next = restored();
    expect([next.connected, next.state, next.ring(0, 0)]).toEqual([false, 3, true]);
  });

  it.each([
    ['died', true],
    ['evicted it', false],
  ])('reports that its server has %s meanwhile', (_what, usable) => {
    // As a host server does: on an open file of its own.
    const mark = openSync(`/proc/self/fd/${memory}`, 'r+');
    markFileInUse(mark);
    keep().state = 3;
    leave();
    server.close();
    if (usable) closeSync(mark);
    const next = restored();
    const events = eventsOf(next);
    settle();
    expect(events).toMatchObject([{ type: 'provider-gone', usable }]);
    expect([next.connected, next.state, next.ring(0, 0), names().includes('server')]).toEqual([
      false,
      3,
      true,
      false,
    ]);
    if (!usable) closeSync(mark);
  });

  it.each<[string, RegExp, () => void]>([
    ['is incomplete', /it was not stored completely/, () => storeOf([]).remove('state')],
    ['has no memory', /it was not stored completely/, () => storeOf([]).remove('memory')],
    ['lacks a vector', /some of its vectors are missing/, () => storeOf([]).remove('eventfd.1.1')],
    ['has lost its connection', /has disconnected it meanwhile/, () => server.close()],
    ['has another file as a vector', /no eventfd/, () => replace('eventfd.0.1', memory)],
    ['has another file as memory', /no regular file/, () => replace('memory', eventFds[0]![0]!)],
    ['has shorter memory', /too small/, () => replace('memory', createMemfd('ivshmem-test', 0x2000), true)],
    ['has another file as connection', /ENOTSOCK/, () => replace('server', memory)],
    ['has another file as state', /not in a sealed memfd/, () => replace('state', eventFds[0]![0]!)],
    ['is of another version', /version 99, and this program reads version 1/, () => otherState(99)],
    ['has a state of zeros', /the descriptor store had failed/, () => otherState(1)],
    ['has a state of nonsense', /its state is invalid: server sent/, () => otherState(1, 0x01010101)],
  ])('is not used if it %s, and everything is released', (_what, reason, spoil) => {
    keep();
    leave();
    spoil();
    manage();
    expect(restore()).toMatch(reason);
    expect([names(), poller.size]).toEqual([[], 0]);
  });

  it('is not used for another host server', () => {
    keep();
    leave();
    expect(restore('/run/other')).toBe(`it is on the host server at ${path}`);
    expect(names()).toEqual([]);
    expect(server.receive(new Uint8Array(1), [])).toBe(0);
  });

  it('works on without a store that fails, and the next process begins anew', () => {
    keep();
    notify.close();
    sendPeer(2);
    settle();
    expect(port!.ring(2, 1)).toBe(true);
    expect(log).toEqual([
      expect.stringMatching(
        /^a restart will not continue here, since the descriptor store failed: connect .*ENOENT/,
      ),
    ]);
    notify = NotifySocket.listen(notify.path);
    leave();
    expect(restore()).toBe('the descriptor store had failed');
    expect(names()).toEqual([]);
  });

  function replace(name: string, fd: number, close = false): void {
    const store = storeOf([]);
    store.remove(name);
    store.put(name, fd);
    if (close) closeFd(fd);
  }

  /** A state of this version with this word throughout. */
  function otherState(version: number, word = 0): void {
    using state = StateMemory.create('port', version, 192);
    new Uint32Array(state.mapping.buffer, state.offset, 48).fill(word);
    if (word !== 0) new Uint32Array(state.mapping.buffer, state.offset, 1)[0] = 1;
    replace('state', state.fd);
  }
});
