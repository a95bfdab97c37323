import { closeSync, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { closeFd } from '@ivshmem/linux';
import { createMemfd, mapShared } from '@ivshmem/linux/memory';
import { markFileInUse } from '@ivshmem/linux/process';
import { UnixListener, type UnixSocket } from '@ivshmem/linux/socket';
import {
  createEventFd,
  drainEventFd,
  Epoll,
  type EventHandler,
  type Poller,
  signalEventFd,
} from '@ivshmem/linux/wait';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { encodeEventFd, encodeInit, encodePeerGone } from '../protocol/server-messages.ts';
import { type OpeningPort, openServerPort } from './open-server-port.ts';
import type { Port, PortEvent } from './port.ts';

const openFds = () => readdirSync('/proc/self/fd').length;

const VECTORS = 2;
const SIZE = 0x1000 + 0x1000 + 3 * 0x2000;
const identity = { id: 1, maxPeers: 3, vectors: VECTORS, protocol: 1, outputSectionSize: 0x2000 };

let before: number;
let directory: string;
let path: string;
let poller: Epoll;
let listener: UnixListener;
let memory: number;
/** The eventfds of three peers, as the server holds them. */
let eventFds: number[][];
let server: UnixSocket | null;
let opened: Port | Error | undefined;
let opening: OpeningPort;

beforeEach(() => {
  before = openFds();
  directory = mkdtempSync(join(tmpdir(), 'ivshmem-'));
  path = join(directory, 'socket');
  poller = new Epoll();
  listener = UnixListener.listen(path);
  memory = createMemfd('ivshmem-test', SIZE);
  eventFds = [0, 1, 2].map(() => Array.from({ length: VECTORS }, () => createEventFd()));
  opened = undefined;
  server = null;
});

afterEach(() => {
  opening?.cancel();
  if (opened !== undefined && !(opened instanceof Error)) opened.close();
  server?.close();
  listener.close();
  poller.close();
  for (const fd of [memory, ...eventFds.flat()]) closeFd(fd);
  rmSync(directory, { recursive: true });
  expect(openFds()).toBe(before);
});

function connect(on: Poller = poller): UnixSocket {
  opening = openServerPort(path, on, (result) => {
    if (opened !== undefined) throw new Error('opened twice');
    opened = result;
  });
  server = listener.accept();
  return server!;
}

/** Handles everything that has arrived. */
function settle(): void {
  while (poller.wait(0) > 0);
}

const sendInit = () => server!.send(encodeInit(identity), [memory]);
const sendVector = (peer: number, vector: number, fd = eventFds[peer]![vector]!) =>
  server!.send(encodeEventFd(peer, vector), [fd]);
const sendPeer = (peer: number) => {
  for (let vector = 0; vector < VECTORS; vector++) sendVector(peer, vector);
};

/** An open port of peer 1, with the peers that were connected before. */
function openPort(...others: number[]): Port {
  connect();
  sendInit();
  for (const other of others) sendPeer(other);
  sendPeer(1);
  settle();
  if (opened === undefined) throw new Error('not opened');
  if (opened instanceof Error) throw opened;
  return opened;
}

function eventsOf(port: Port): PortEvent[] {
  const events: PortEvent[] = [];
  port.onEvent((event) => events.push(event));
  return events;
}

function interruptsOf(port: Port): number[] {
  const interrupts: number[] = [];
  port.onInterrupt((vector) => interrupts.push(vector));
  return interrupts;
}

/** The doorbells rung since the last call, for each peer and vector. */
const rung = () => eventFds.map((fds) => fds.map((fd) => Number(drainEventFd(fd))));

describe('openServerPort', () => {
  it('opens a port when all vectors of this peer have arrived', () => {
    connect();
    sendInit();
    sendPeer(2);
    sendVector(1, 0);
    settle();
    expect(opened).toBeUndefined();
    sendVector(1, 1);
    settle();
    expect(opened).toMatchObject({ id: 1, maxPeers: 3, protocol: 1, vectors: VECTORS });
    const port = opened as Port;
    expect(port.layout).toMatchObject({ size: SIZE, readWriteSize: 0x1000, outputSectionSize: 0x2000 });
    for (const peer of [0, 2]) expect(port.ring(peer, VECTORS - 1)).toBe(peer === 2);
    expect(port.ring(2, VECTORS)).toBe(false);
  });

  it('accepts interleaved vectors of different peers', () => {
    connect();
    sendInit();
    sendVector(1, 0);
    sendVector(0, 0);
    sendVector(2, 0);
    sendVector(0, 1);
    sendVector(2, 1);
    sendVector(1, 1);
    settle();
    const port = opened as Port;
    expect([port.ring(0, 1), port.ring(2, 0)]).toEqual([true, true]);
    expect(rung()).toEqual([
      [0, 1],
      [0, 0],
      [1, 0],
    ]);
  });

  it('reports that no server listens', () => {
    listener.close();
    opening = openServerPort(path, poller, (result) => {
      opened = result;
    });
    expect((opened as unknown as Error).message).toMatch(/^connect .*socket: ENOENT: [^\n]+$/);
    opening.cancel();
  });

  it.each([0, 1, 2, 3])('can be cancelled after %i steps', (stepsDone) => {
    connect();
    const steps = [sendInit, () => sendPeer(0), () => sendVector(1, 0)];
    for (const step of steps.slice(0, stepsDone)) {
      step();
      settle();
    }
    opening.cancel();
    opening.cancel();
    expect(poller.size).toBe(0);
    expect(opened).toBeUndefined();
    expect(server!.receive(new Uint8Array(1), [])).toBe(0);
  });

  it('cannot be cancelled once the port is open', () => {
    const port = openPort(0);
    opening.cancel();
    expect(port.ring(0, 0)).toBe(true);
  });

  it.each([0, 1, 3])('fails if the server stops sending after %i steps', (stepsDone) => {
    // The first descriptor that it watches is its timer: call its handler as if it had expired.
    const handlers: EventHandler[] = [];
    connect({
      add: (fd, events, handler) => {
        handlers.push(handler);
        poller.add(fd, events, handler);
      },
      modify: (fd, events) => poller.modify(fd, events),
      remove: (fd) => poller.remove(fd),
    });
    for (const step of [sendInit, () => sendPeer(0), () => sendVector(1, 0)].slice(0, stepsDone)) {
      step();
      settle();
    }
    handlers[0]!(1);
    expect((opened as Error).message).toBe(
      `host server at ${path}: no answer in 5000 ms: is it an ivshmem v2 host server?`,
    );
    expect(poller.size).toBe(0);
  });
});

/** Everything that a server can do wrong; `said` is what the error says of it. */
const early: [string, RegExp, () => void][] = [
  ['hangs up at once', /closed the connection at once: it has no room/, () => server!.close()],
  ['speaks another protocol', /message type 542397776/, () => server!.send(Buffer.from('PUT / HTTP/1.1'))],
  ['sends a vector before INIT', /event-fd before INIT/, () => sendVector(1, 0)],
  ['sends PEER_GONE before INIT', /peer-gone before INIT/, () => server!.send(encodePeerGone(0))],
  ['sends INIT without memory', /INIT without a descriptor/, () => server!.send(encodeInit(identity))],
  [
    'sends two descriptors',
    /2 descriptors with a message/,
    () => server!.send(encodeInit(identity), [memory, memory]),
  ],
  [
    'sends part of INIT',
    /after 30 bytes of a message/,
    () => {
      server!.send(encodeInit(identity).subarray(0, 30), [memory]);
      server!.close();
    },
  ],
  [
    'announces more than the memory holds',
    /shared memory of 32768 bytes is too small/,
    () => server!.send(encodeInit({ ...identity, outputSectionSize: 0x3000 }), [memory]),
  ],
  [
    'announces sections of half a page',
    /multiple of 4096/,
    () => server!.send(encodeInit({ ...identity, outputSectionSize: 0x800 }), [memory]),
  ],
  [
    'sends what is no memory',
    /shared memory is no regular file/,
    () => server!.send(encodeInit(identity), [eventFds[0]![0]!]),
  ],
  [
    'sends memory that may not be written',
    /mmap shared memory: EACCES/,
    () => {
      writeFileSync(join(directory, 'memory'), new Uint8Array(SIZE));
      const fd = openSync(join(directory, 'memory'), 'r');
      server!.send(encodeInit(identity), [fd]);
      closeFd(fd);
    },
  ],
];
const late: [string, RegExp, () => void][] = [
  ['hangs up', /the host server is gone/, () => server!.close()],
  ['sends INIT twice', /INIT twice/, sendInit],
  ['leaves out a vector', /vector 1 of peer 2: expected 0/, () => sendVector(2, 1)],
  [
    'sends a vector twice',
    /vector 0 of peer 2: expected 1/,
    () => {
      sendVector(2, 0);
      sendVector(2, 0);
    },
  ],
  ['sends a vector that cannot be', /vector 2: expected less than 2/, () => sendVector(2, 2, memory)],
  ['sends a peer that cannot be', /id 3: expected less than max_peers 3/, () => sendVector(3, 0, memory)],
  ['says that we are gone', /PEER_GONE for this peer itself/, () => server!.send(encodePeerGone(1))],
  [
    'sends PEER_GONE with a descriptor',
    /PEER_GONE with a descriptor/,
    () => server!.send(encodePeerGone(0), [memory]),
  ],
  [
    'sends a vector that is no eventfd',
    /vector 0 of peer 2 with a descriptor/,
    () => sendVector(2, 0, memory),
  ],
  ['sends a vector without an eventfd', /EVENT_FD without/, () => server!.send(encodeEventFd(2, 0))],
  [
    'sends a peer that is there',
    /vector 0 of peer 0: expected 2/,
    () => {
      sendPeer(0);
      sendPeer(0);
    },
  ],
];

describe('a server that', () => {
  it.each(early)('%s: the port is not opened, and nothing is left behind', (_, said, misbehave) => {
    connect();
    misbehave();
    settle();
    const { message } = opened as Error;
    expect(message).toMatch(said);
    expect(message).toMatch(/^host server at [^\n]+$/);
    expect(poller.size).toBe(0);
  });

  it.each(late)('%s before all its vectors have arrived: the port is not opened', (_, said, misbehave) => {
    connect();
    sendInit();
    sendVector(1, 0);
    misbehave();
    settle();
    const { message } = opened as Error;
    expect(message).toMatch(said);
    expect(message).toMatch(/^host server at [^\n]+$/);
    expect(poller.size).toBe(0);
  });

  it.each(late)('%s once the port is open: it counts as gone, the port still works', (_, said, misbehave) => {
    const port = openPort();
    const events = eventsOf(port);
    const interrupts = interruptsOf(port);
    misbehave();
    settle();
    expect(events.at(-1)).toMatchObject({ type: 'provider-gone', reason: expect.stringMatching(said) });
    expect(events.filter(({ type }) => type === 'provider-gone')).toHaveLength(1);
    signalEventFd(eventFds[1]![1]!);
    settle();
    expect(interrupts.at(-1)).toBe(1);
    port.close();
    expect(poller.size).toBe(0);
  });

  it('sends vectors that are no eventfds: the port is not opened', () => {
    connect();
    writeFileSync(join(directory, 'file'), '');
    const fd = openSync(join(directory, 'file'), 'r+');
    sendInit();
    for (let vector = 0; vector < VECTORS; vector++) sendVector(1, vector, fd);
    closeFd(fd);
    settle();
    expect((opened as Error).message).toMatch(
      /^host server at [^\n]+: server sent vector 0 of peer 1 with a descriptor that is no eventfd$/,
    );
  });

  it('never stops sending does not block the thread', () => {
    const port = openPort();
    const events = eventsOf(port);
    const interrupts = interruptsOf(port);
    for (let i = 0; i < 40; i++) {
      sendPeer(0);
      server!.send(encodePeerGone(0));
    }
    poller.wait(0);
    expect(events.length).toBeGreaterThan(0);
    expect(events.length).toBeLessThan(80);
    settle();
    expect(events).toEqual(
      Array.from({ length: 80 }, (_, i) => ({ type: i % 2 === 0 ? 'peer-joined' : 'peer-gone', peer: 0 })),
    );
    expect(interrupts).toEqual(Array(40).fill(0));
  });
});

describe('a port on a host server', () => {
  it('is interrupted on the vector that was rung', () => {
    const port = openPort(0);
    const interrupts = interruptsOf(port);
    for (const vector of [1, 0, 1]) {
      signalEventFd(eventFds[1]![vector]!);
      settle();
    }
    expect(interrupts).toEqual([1, 0, 1]);
  });

  it('rings the vector of the peer', () => {
    const port = openPort(0, 2);
    expect([port.ring(0, 1), port.ring(2, 0), port.ring(2, 0)]).toEqual([true, true, true]);
    expect(rung()).toEqual([
      [0, 1],
      [0, 0],
      [2, 0],
    ]);
  });

  it('interrupts all peers but itself on vector 0 when its state changes, and only then', () => {
    const port = openPort(0, 2);
    const interrupts = interruptsOf(port);
    port.state = 2;
    port.state = 2;
    settle();
    expect(rung()).toEqual([
      [1, 0],
      [0, 0],
      [1, 0],
    ]);
    expect(interrupts).toEqual([]);
  });

  it('reports peers that join, leave, and join again with other eventfds', () => {
    const port = openPort(0);
    const events = eventsOf(port);
    const interrupts = interruptsOf(port);
    const fdsWithPeer = openFds();
    server!.send(encodePeerGone(0));
    settle();
    expect(events).toEqual([{ type: 'peer-gone', peer: 0 }]);
    expect(interrupts).toEqual([0]);
    expect(port.ring(0, 0)).toBe(false);
    expect(openFds()).toBe(fdsWithPeer - VECTORS);

    const fresh = [createEventFd(), createEventFd()];
    for (const [vector, fd] of fresh.entries()) sendVector(0, vector, fd);
    settle();
    expect(events.at(-1)).toEqual({ type: 'peer-joined', peer: 0 });
    expect(port.ring(0, 1)).toBe(true);
    expect(fresh.map((fd) => drainEventFd(fd))).toEqual([0n, 1n]);
    expect(rung()[0]).toEqual([0, 0]);
    for (const fd of fresh) closeFd(fd);
  });

  it('ignores the departure of a peer that had not joined, or not completely', () => {
    const port = openPort();
    const events = eventsOf(port);
    const interrupts = interruptsOf(port);
    const fds = openFds();
    server!.send(encodePeerGone(0));
    sendVector(2, 0);
    server!.send(encodePeerGone(2));
    settle();
    expect({ events, interrupts, fds: openFds() }).toEqual({ events: [], interrupts: [], fds });
    sendPeer(2);
    settle();
    expect(events).toEqual([{ type: 'peer-joined', peer: 2 }]);
  });

  it('keeps the doorbells of its peers when the server is gone', () => {
    const port = openPort(0);
    server!.close();
    settle();
    expect(port.ring(0, 1)).toBe(true);
    port.state = 3;
    expect(rung()[0]).toEqual([1, 1]);
  });

  it('sets its state to 0 and interrupts its peers when it is closed', () => {
    const port = openPort(0);
    port.state = 3;
    rung();
    port.close();
    port.close();
    expect(rung()[0]).toEqual([1, 0]);
    expect(server!.receive(new Uint8Array(1), [])).toBe(0);
  });

  it('propagates an error of an interrupt handler, and does not attribute it to the server', () => {
    const port = openPort(0);
    const events = eventsOf(port);
    port.onInterrupt(() => {
      throw new Error('the interface is gone');
    });
    server!.send(encodePeerGone(0));
    expect(settle).toThrow('the interface is gone');
    port.onInterrupt(() => {});
    sendPeer(0);
    settle();
    expect(events.map(({ type }) => type)).toEqual(['peer-gone', 'peer-joined']);
  });

  it.each(['an event', 'an interrupt'])('may be closed, and another one opened, from within %s', (from) => {
    const first = openPort(0);
    const firstServer = server!;
    const replace = () => {
      first.close();
      opened = undefined;
      connect();
    };
    if (from === 'an event') first.onEvent(replace);
    else first.onInterrupt(replace);
    firstServer.send(encodePeerGone(0));
    firstServer.send(encodePeerGone(2));
    settle();
    firstServer.close();
    sendInit();
    sendPeer(1);
    settle();
    expect(opened).toMatchObject({ id: 1 });
    const interrupts = interruptsOf(opened as unknown as Port);
    signalEventFd(eventFds[1]![1]!);
    settle();
    expect(interrupts).toEqual([1]);
  });

  it('may be closed as soon as it is opened', () => {
    opening = openServerPort(path, poller, (result) => (result as Port).close());
    server = listener.accept();
    sendInit();
    sendPeer(1);
    sendPeer(0);
    settle();
    expect(poller.size).toBe(0);
  });
});

describe('the end of the connection', () => {
  /** The port at RUN, the state table as the server has it, and what follows the end. */
  function running() {
    const port = openPort(0);
    port.state = 3;
    const mapping = mapShared(memory, 4096, { write: true });
    const table = new Uint32Array(mapping.buffer);
    const end = () => {
      const events = eventsOf(port);
      server!.close();
      settle();
      return events.at(-1);
    };
    return { port, table, end, [Symbol.dispose]: () => mapping.close() };
  }

  it('is that of the server if the state table is unchanged: the port stays usable', () => {
    using test = running();
    expect(test.end()).toMatchObject({ type: 'provider-gone', usable: true });
    test.port.state = 1;
    expect(test.table[1]).toBe(1);
    test.port.close();
    expect(test.table[1]).toBe(0);
  });

  it("is an eviction if the entry has changed: it is the next owner's, and no longer written", () => {
    using test = running();
    test.table[1] = 2;
    expect(test.end()).toMatchObject({ type: 'provider-gone', usable: false });
    test.port.state = 1;
    test.port.close();
    expect(test.table[1]).toBe(2);
  });

  it('is an eviction if the mark of the memory remains, whatever the entry is', () => {
    const mark = openSync(`/proc/self/fd/${memory}`, 'r+');
    try {
      markFileInUse(mark);
      using test = running();
      expect(test.end()).toMatchObject({ usable: false, reason: expect.stringMatching(/--evict-after/) });
      test.port.close();
      expect(test.table[1]).toBe(3);
    } finally {
      closeSync(mark);
    }
  });

  it('is that of the server if its mark disappears, too', () => {
    const mark = openSync(`/proc/self/fd/${memory}`, 'r+');
    markFileInUse(mark);
    using test = running();
    closeSync(mark);
    test.table[1] = 0;
    expect(test.end()).toMatchObject({ usable: true });
  });
});
