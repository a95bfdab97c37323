import { fstatSync, readdirSync } from 'node:fs';
import { Epoll } from '@ivshmem/linux/wait';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LayoutError } from '../protocol/memory-layout.ts';
import { ringLayout } from '../protocol/ring-layout.ts';
import { TxQueue } from '../protocol/tx-queue.ts';
import { Loopback, LoopbackPort } from './loopback-port.ts';
import type { PortEvent } from './port.ts';
import { openPort } from './port-source.ts';

const openFds = () => readdirSync('/proc/self/fd').length;
let before: number;
let poller: Epoll;
let loopback: Loopback;
let ports: [LoopbackPort, LoopbackPort];
/** The vectors on which each port was interrupted. */
let heard: [number[], number[]];

beforeEach(() => {
  before = openFds();
  poller = new Epoll();
  loopback = new Loopback({ outputSectionSize: 0x2000, readWriteSize: 0x1000, vectors: 3, protocol: 0x4001 });
  ports = [new LoopbackPort(loopback.ends[0], poller), new LoopbackPort(loopback.ends[1], poller)];
  heard = [[], []];
  for (const id of [0, 1] as const) ports[id].onInterrupt((vector) => heard[id].push(vector));
});

afterEach(() => {
  for (const port of ports) port.close();
  loopback.close();
  poller.close();
  expect(openFds()).toBe(before);
});

/** Delivers all interrupts; returns and clears the list of them. */
function deliver(): [number[], number[]] {
  while (poller.wait(0) > 0);
  const delivered = heard;
  heard = [[], []];
  return delivered;
}

describe('LoopbackPort', () => {
  it('knows which part of its output section may be nonzero, so that a queue allocates memory only there', () => {
    const outputSectionSize = 2 ** 28;
    const layout = ringLayout(outputSectionSize);
    using large = new Loopback({ outputSectionSize });
    const memory = () => fstatSync(large.ends[0].memoryFd).blocks * 512;
    /** Opens the port, has its section initialised some times, with frames in between, and closes it. */
    const use = (frames: number): number => {
      using port = new LoopbackPort(large.ends[0], poller);
      const queue = new TxQueue(port.output!, port.input(1)!, layout, port.dirtyOutput);
      for (let reset = 0; reset < 100; reset++) {
        queue.initialise();
        for (let frame = 0; frame < frames; frame++) {
          const slot = queue.reserve(1514);
          new Uint8Array(port.output!.buffer)[slot] = 1;
          queue.commit(1514);
        }
      }
      return port.dirtyOutput;
    };
    expect(use(0)).toBe(0);
    expect(memory()).toBeLessThan(2 ** 18);
    expect(use(100)).toBeLessThan(2 ** 18);
    expect(memory()).toBeLessThan(2 ** 19);
    expect(use(0)).toBeGreaterThan(layout.data + 99 * 1514);
  });

  it('reports its properties', () => {
    for (const id of [0, 1] as const) {
      expect(ports[id]).toMatchObject({ id, maxPeers: 2, protocol: 0x4001, vectors: 3 });
      expect(ports[id].layout).toMatchObject({
        size: 0x6000,
        readWriteSize: 0x1000,
        outputSectionSize: 0x2000,
      });
    }
  });

  it('interrupts the peer on the vector that was rung', () => {
    for (const vector of [0, 1, 2]) {
      expect(ports[0].ring(1, vector)).toBe(true);
      expect(deliver()).toEqual([[], [vector]]);
      expect(ports[1].ring(0, vector)).toBe(true);
      expect(deliver()).toEqual([[vector], []]);
    }
  });

  it('interrupts itself if it rings itself', () => {
    expect(ports[0].ring(0, 2)).toBe(true);
    expect(deliver()).toEqual([[2], []]);
  });

  it('merges interrupts until they are delivered, and receives the next one again', () => {
    for (let i = 0; i < 100; i++) ports[0].ring(1, 1);
    expect(deliver()).toEqual([[], [1]]);
    expect(deliver()).toEqual([[], []]);
    ports[0].ring(1, 1);
    expect(deliver()).toEqual([[], [1]]);
  });

  it('does not ring if the peer or the vector does not exist', () => {
    for (const [peer, vector] of [
      [1, 3],
      [1, -1],
      [1, 0.5],
      [2, 0],
      [-1, 0],
      [Number.NaN, 0],
      [0xffff, 0xffff],
    ] as const) {
      expect(ports[0].ring(peer, vector)).toBe(false);
    }
    expect(deliver()).toEqual([[], []]);
  });

  it('interrupts the peer on vector 0 when its state changes, and only then', () => {
    ports[0].state = 0;
    expect(deliver()).toEqual([[], []]);
    ports[0].state = 1;
    expect(deliver()).toEqual([[], [0]]);
    expect([ports[0].state, ports[1].peerState(0), ports[0].peerState(1)]).toEqual([1, 1, 0]);
    ports[0].state = 1;
    expect(deliver()).toEqual([[], []]);
    ports[0].state = 0xffffffff;
    expect(deliver()).toEqual([[], [0]]);
    ports[0].state = 0xffffffff;
    ports[0].state = -1;
    expect(deliver()).toEqual([[], []]);
    expect(ports[1].peerState(0)).toBe(0xffffffff);
  });

  it('returns the states of possible peers only', () => {
    for (const peer of [-1, 2, 0.5, Number.NaN]) expect(() => ports[0].peerState(peer)).toThrow(RangeError);
  });

  it('shares the sections', () => {
    new Uint8Array(ports[0].output!.buffer).fill(0xa0);
    new Uint8Array(ports[1].output!.buffer).fill(0xb1);
    new Uint8Array(ports[0].readWrite!.buffer).fill(0xcc);
    const all = (section: { buffer: ArrayBuffer }) => [...new Set(new Uint8Array(section.buffer))];
    expect([all(ports[1].input(0)!), all(ports[0].input(1)!), all(ports[1].readWrite!)]).toEqual([
      [0xa0],
      [0xb1],
      [0xcc],
    ]);
  });

  it('sets its state to 0 and interrupts the peer when it is closed', () => {
    ports[0].state = 3;
    deliver();
    ports[0].close();
    ports[0].close();
    expect(deliver()).toEqual([[], [0]]);
    expect(ports[1].peerState(0)).toBe(0);
  });

  it('does nothing after it is closed', () => {
    const events: PortEvent[] = [];
    ports[0].onEvent((event) => events.push(event));
    ports[1].ring(0, 1);
    ports[0].close();
    ports[0].state = 3;
    expect([ports[0].ring(1, 1), ports[0].doorbells(1), ports[0].peerState(1)]).toEqual([false, [], 0]);
    expect(() => ports[0].output).toThrow('closed');
    ports[1].ring(0, 1);
    expect(deliver()).toEqual([[], []]);
    expect({ events, state: ports[1].peerState(0) }).toEqual({ events: [], state: 0 });
  });

  it('stays usable when the loopback is closed before it', () => {
    loopback.close();
    loopback.close();
    expect(ports[0].ring(1, 1)).toBe(true);
    expect(deliver()).toEqual([[], [1]]);
    expect(ports[1].input(0)).not.toBeNull();
  });

  it('cannot be opened once the loopback is closed', () => {
    loopback.close();
    let opened: unknown;
    openPort({ type: 'loopback', end: loopback.ends[0] }, poller, (result) => {
      opened = result;
    });
    expect(opened).toBeInstanceOf(Error);
    expect((opened as Error).message).toMatch(/^fcntl F_DUPFD_CLOEXEC fd \d+: EBADF: [^\n]+$/);
  });

  it('rejects impossible sizes', () => {
    for (const options of [
      { outputSectionSize: 100 },
      { outputSectionSize: 0x1000, readWriteSize: 1 },
      { outputSectionSize: -0x1000 },
    ]) {
      expect(() => new Loopback(options)).toThrow(LayoutError);
    }
  });
});
