import { readdirSync } from 'node:fs';
import { Epoll } from '@ivshmem/linux/wait';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Loopback, LoopbackPort } from '../port/loopback-port.ts';
import type { PortEvent } from '../port/port.ts';
import { State } from '../protocol/handshake.ts';
import { Violation } from '../protocol/violation.ts';
import { Peer, type PeerUser } from './peer.ts';

const SECTION = 0x10000;

/** A port whose provider the test can make go away. */
class Port extends LoopbackPort {
  override report(event: PortEvent): void {
    super.report(event);
  }
}

let fdsBefore: number;
let poller: Epoll;
let loopback: Loopback;
let ports: [Port, Port];
let peers: [Peer, Peer];
let calls: [string[], string[]];

function setUp(options: { vectors?: number; protocol?: number } = {}): void {
  loopback = new Loopback({ outputSectionSize: SECTION, ...options });
  ports = [new Port(loopback.ends[0], poller), new Port(loopback.ends[1], poller)];
  peers = [new Peer(ports[0], poller), new Peer(ports[1], poller)];
  calls = [[], []];
}

function begin(changes: PeerUser = {}): void {
  for (const id of [0, 1] as const) {
    peers[id].begin({
      announce: () => calls[id].push('announce'),
      start: () => calls[id].push('start'),
      stop: () => calls[id].push('stop'),
      carrier: (on) => calls[id].push(on ? 'carrier on' : 'carrier off'),
      interrupted: (vector) => vector > 0 && calls[id].push(`interrupt ${vector}`),
      violated: (violation) => calls[id].push(`violation ${violation}`),
      providerGone: (reason, usable) => calls[id].push(`${reason}, usable: ${usable}`),
      ...(id === 0 && changes),
    });
  }
}

/** Delivers interrupts until none are pending. */
function settle(): void {
  while (poller.wait(0) > 0);
}

function up(changes: PeerUser = {}): void {
  begin(changes);
  settle();
  expect(peers.map(({ running, status }) => running && status.carrier)).toEqual([true, true]);
  calls = [[], []];
}

function send(from: Peer, bytes: readonly number[]): void {
  const slot = from.tx.reserve(bytes.length);
  new Uint8Array(from.own.buffer).set(bytes, slot);
  from.tx.commit(bytes.length);
}

function take(at: Peer): number[] {
  expect(at.rx.available()).toBeGreaterThan(0);
  expect(at.rx.next()).toBe(true);
  const { offset, length } = at.rx;
  return [...new Uint8Array(at.input.buffer, offset, length)];
}

beforeEach(() => {
  fdsBefore = readdirSync('/proc/self/fd').length;
  poller = new Epoll();
  setUp();
});

afterEach(() => {
  for (const peer of peers) peer.close();
  loopback.close();
  poller.close();
  expect(readdirSync('/proc/self/fd').length).toBe(fdsBefore);
});

describe('Peer', () => {
  it('does nothing before begin, then comes up', () => {
    settle();
    expect(ports.map(({ state }) => state)).toEqual([State.RESET, State.RESET]);
    begin();
    settle();
    expect(calls).toEqual([
      ['announce', 'start', 'carrier on'],
      ['announce', 'start', 'carrier on'],
    ]);
    expect(peers.map(({ other, status }) => [other, status.carrier])).toEqual([
      [1, true],
      [0, true],
    ]);
  });

  it.each([1, 2])(
    'passes frames both ways, and interrupts a peer that sleeps, with %i vectors',
    (vectors) => {
      for (const peer of peers) peer.close();
      loopback.close();
      setUp({ vectors });
      const interrupts: number[] = [];
      up({ interrupted: (vector) => interrupts.push(vector) });
      interrupts.length = 0;
      expect(peers[0].sleep()).toBe(true);
      send(peers[1], [1, 2, 3]);
      expect(interrupts).toEqual([]);
      expect(peers[1].flush()).toBe(true);
      settle();
      expect(interrupts).toEqual([vectors - 1]);
      expect(take(peers[0])).toEqual([1, 2, 3]);
      send(peers[0], [4]);
      peers[0].flush();
      expect(take(peers[1])).toEqual([4]);
      expect([peers[1].tx.reclaim(), peers[1].tx.inFlight]).toEqual([1, 0]);
    },
  );

  it('does not sleep while there are frames, unless it accepts none at present', () => {
    up();
    send(peers[1], [1]);
    peers[1].flush();
    expect([peers[0].sleep(), peers[0].sleep(false)]).toEqual([false, true]);
  });

  it('reminds a sender that may have missed the interrupt, three times', () => {
    up();
    send(peers[1], [1]);
    peers[1].flush();
    // The first flush rings, since used_event is 0. For the reminders, that is the same as a request that came too late.
    take(peers[0]);
    peers[0].flush();
    settle();
    calls[1] = [];
    const limits: number[] = [];
    for (peers[0].sleep(); peers[0].overslept(); peers[0].sleep()) limits.push(peers[0].sleepLimit);
    settle();
    expect({ limits, last: peers[0].sleepLimit }).toEqual({ limits: [2, 20, 200], last: -1 });
    expect(calls[1]).toContain('interrupt 1');
  });

  it('reports a violation once, resets, and recovers', () => {
    up();
    const { avail } = peers[1].layout;
    new Uint16Array(peers[1].own.buffer)[avail / 2 + 1] = 1000;
    expect(peers[0].rx.available()).toBe(0);
    peers[0].flush();
    expect(calls[0].slice(0, 3)).toEqual([`violation ${Violation.AVAIL_INDEX}`, 'carrier off', 'stop']);
    settle();
    expect(calls[0].slice(3)).toEqual(['announce', 'start', 'carrier on']);
    expect(peers[0].counters).toMatchObject({ resets: 1, faults: 1 });
    send(peers[1], [5]);
    peers[1].flush();
    expect(take(peers[0])).toEqual([5]);
  });

  it('does not treat it as a violation that the rings are cleared after the other side has left', () => {
    up();
    send(peers[0], [1]);
    peers[0].flush();
    take(peers[1]);
    peers[1].flush();
    expect(peers[0].tx.reclaim()).toBe(1);
    peers[1].close();
    // As the server does before it assigns the ID again: used.idx goes back to 0.
    using memory = new LoopbackPort(loopback.ends[1], poller);
    new Uint8Array(memory.output!.buffer).fill(0);
    expect(peers[0].tx.reclaim()).toBe(0);
    peers[0].flush();
    expect(calls[0]).toEqual(['carrier off', 'stop']);
    expect(peers[0].counters.faults).toBe(0);
  });

  it('can be taken down and up again', () => {
    up();
    peers[0].setEnabled(false);
    expect([peers[0].running, ports[0].state]).toEqual([false, State.RESET]);
    settle();
    expect(peers[1].running).toBe(false);
    peers[0].setEnabled(true);
    settle();
    expect(peers.map(({ running }) => running)).toEqual([true, true]);
  });

  it('does nothing once the port must not be used any more', () => {
    up();
    ports[0].report({ type: 'provider-gone', reason: 'gone', usable: false });
    peers[1].close();
    settle();
    expect(calls[0]).toEqual(['gone, usable: false']);
  });

  it('rethrows exceptions of its user, having closed the port', () => {
    begin({
      start: () => {
        throw new Error('no start');
      },
    });
    expect(settle).toThrow('no start');
    settle();
    expect([peers[0].running, ports[0].state, peers[1].running]).toEqual([false, State.RESET, false]);
  });

  it('stops and disconnects on close, which is idempotent', () => {
    up();
    peers[0].close();
    peers[0].close();
    settle();
    expect(calls).toEqual([
      ['carrier off', 'stop'],
      ['carrier off', 'stop'],
    ]);
  });

  it('accepts only ports of two peers with output sections', () => {
    using three = new LoopbackPort(
      { ...loopback.ends[0], id: 2, maxPeers: 3, outputSectionSize: 4096, eventFds: [[], [], []] },
      poller,
    );
    expect(() => new Peer(three, poller)).toThrow(RangeError);
  });
});
