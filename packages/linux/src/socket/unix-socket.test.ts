import { fstatSync, readdirSync } from 'node:fs';
import { getegid, geteuid } from 'node:process';
import { describe, expect, it } from 'vitest';
import { SystemCallError } from '../errors.ts';
import { closeFd, duplicateFd } from '../fd.ts';
import { createMemfd } from '../memory/memfd.ts';
import { signalEventFd } from '../wait/doorbell.ts';
import { createEventFd, drainEventFd } from '../wait/eventfd.ts';
import { MAX_FDS, UnixSocket } from './unix-socket.ts';

const openFds = () => readdirSync('/proc/self/fd').length;
const sameFile = (a: number, b: number) => fstatSync(a).ino === fstatSync(b).ino;

describe('UnixSocket', () => {
  it('carries bytes both ways, and distinguishes no data from the end', () => {
    const [a, b] = UnixSocket.pair();
    const into = new Uint8Array(8);
    expect(b.receive(into, [])).toBe(-1);
    expect(a.send(Uint8Array.of(1, 2, 3))).toBe(3);
    expect(b.send(Uint8Array.of(9))).toBe(1);
    expect(b.receive(into.subarray(0, 2), [])).toBe(2);
    expect(b.receive(into.subarray(2), [])).toBe(1);
    expect([...into.subarray(0, 3)]).toEqual([1, 2, 3]);
    expect(a.receive(into, [])).toBe(1);
    a.close();
    expect(b.receive(into, [])).toBe(0);
    b.close();
  });

  it('passes descriptors of the same open file, close-on-exec, with the first byte', () => {
    const before = openFds();
    const [a, b] = UnixSocket.pair();
    const event = createEventFd();
    const memory = createMemfd('carried', 4096);
    a.send(Uint8Array.of(1, 2), [event, memory]);
    const fds: number[] = [];
    const into = new Uint8Array(1);
    expect(b.receive(into, fds)).toBe(1);
    expect(fds).toHaveLength(2);
    expect(b.receive(into, fds)).toBe(1);
    expect(fds).toHaveLength(2);
    signalEventFd(event);
    expect(drainEventFd(fds[0]!)).toBe(1n);
    expect(sameFile(fds[1]!, memory)).toBe(true);
    for (const fd of [...fds, event, memory]) closeFd(fd);
    a.close();
    b.close();
    expect(openFds()).toBe(before);
  });

  it('keeps the descriptors of two messages apart, however large the buffer', () => {
    const [a, b] = UnixSocket.pair();
    const events = [createEventFd(), createEventFd()];
    a.send(Uint8Array.of(7));
    a.send(Uint8Array.of(1), [events[0]!]);
    a.send(Uint8Array.of(2), [events[1]!]);
    const arrivals: [number, number[]][] = [];
    const into = new Uint8Array(64);
    for (;;) {
      const fds: number[] = [];
      const received = b.receive(into, fds);
      if (received === -1) break;
      arrivals.push([into[received - 1]!, fds]);
    }
    for (const fd of events) signalEventFd(fd);
    const withFds = arrivals.filter(([, fds]) => fds.length > 0);
    expect(withFds.map(([last, fds]) => [last, fds.length])).toEqual([
      [1, 1],
      [2, 1],
    ]);
    for (const [, fds] of withFds) expect(drainEventFd(fds[0]!)).toBe(1n);
    for (const [, fds] of arrivals) for (const fd of fds) closeFd(fd);
    for (const fd of events) closeFd(fd);
    a.close();
    b.close();
  });

  it('carries as many descriptors as the kernel allows, and rejects more', () => {
    const before = openFds();
    const [a, b] = UnixSocket.pair();
    const event = createEventFd();
    a.send(Uint8Array.of(1), new Array(MAX_FDS).fill(event));
    const fds: number[] = [];
    b.receive(new Uint8Array(1), fds);
    expect(new Set(fds).size).toBe(MAX_FDS);
    expect(() => a.send(Uint8Array.of(1), new Array(MAX_FDS + 1).fill(event))).toThrow(RangeError);
    expect(() => a.send(new Uint8Array(0), [event])).toThrow(RangeError);
    for (const fd of [...fds, event]) closeFd(fd);
    a.close();
    b.close();
    expect(openFds()).toBe(before);
  });

  it('accepts neither bytes nor descriptors while the socket is full', () => {
    const before = openFds();
    const [a, b] = UnixSocket.pair();
    const event = createEventFd();
    let messages = 0;
    while (a.send(Uint8Array.of(messages & 0xff), [event]) === 1) messages++;
    expect(messages).toBeGreaterThan(10);
    const fds: number[] = [];
    const into = new Uint8Array(1);
    for (let i = 0; i < messages; i++) {
      expect(b.receive(into, fds)).toBe(1);
      expect(into[0]).toBe(i & 0xff);
    }
    expect(fds).toHaveLength(messages);
    expect(b.receive(into, fds)).toBe(-1);
    for (const fd of [...fds, event]) closeFd(fd);
    a.close();
    b.close();
    expect(openFds()).toBe(before);
  });

  it('moves more bytes than fit at once, in order', () => {
    const [a, b] = UnixSocket.pair();
    const sent = Uint8Array.from({ length: 1_000_000 }, (_, i) => (i * 7) ^ (i >> 8));
    const received = new Uint8Array(sent.length);
    for (let from = 0, to = 0; to < sent.length; ) {
      if (from < sent.length) from += a.send(sent.subarray(from));
      const n = b.receive(received.subarray(to), []);
      if (n > 0) to += n;
    }
    expect(Buffer.compare(received, sent)).toBe(0);
    a.close();
    b.close();
  });

  it('reports a reader that is gone as an error, not as a signal', () => {
    const [a, b] = UnixSocket.pair();
    b.close();
    expect(() => a.send(Uint8Array.of(1))).toThrow(expect.objectContaining({ code: 'EPIPE' }));
    a.close();
  });

  it('does not touch another file that reuses its number after close()', () => {
    const [a, b] = UnixSocket.pair();
    a.close();
    const stranger = duplicateFd(b.fd);
    expect(() => a.send(Uint8Array.of(1))).toThrow(expect.objectContaining({ code: 'EBADF' }));
    expect(() => a.receive(new Uint8Array(1), [])).toThrow(expect.objectContaining({ code: 'EBADF' }));
    a.close();
    expect(fstatSync(stranger).isSocket()).toBe(true);
    closeFd(stranger);
    b.close();
  });

  it('returns the credentials of the other end', () => {
    const [a, b] = UnixSocket.pair();
    expect(a.peerCredentials()).toEqual({ pid: process.pid, uid: geteuid!(), gid: getegid!() });
    a.close();
    b.close();
  });

  it('names the path, the call and the errno if it cannot connect', () => {
    const before = openFds();
    const path = '/nonexistent/ivshmem.socket';
    expect(() => UnixSocket.connect(path)).toThrow(`connect ${path}: ENOENT`);
    expect(() => UnixSocket.connect(`/tmp/${'x'.repeat(103)}`)).toThrow('107 bytes, not 108');
    expect(() => UnixSocket.connect('')).toThrow(SystemCallError);
    expect(() => UnixSocket.connect('/tmp/a\0b')).toThrow(SystemCallError);
    expect(openFds()).toBe(before);
  });

  it('looks ahead at bytes and descriptors, also those behind them, and receives them later', () => {
    const [a, b] = UnixSocket.pair();
    const fds: number[] = [];
    const into = new Uint8Array(4);
    expect(a.lookAhead(into, fds)).toBe(-1);
    b.send(Uint8Array.of(1, 2));
    b.send(Uint8Array.of(3, 4), [0]);
    // The kernel goes on to what is behind the last byte.
    expect([a.lookAhead(into.subarray(0, 2), fds), fds.length, ...into]).toEqual([2, 1, 1, 2, 0, 0]);
    expect([a.receive(into.subarray(0, 2), fds), fds.length]).toEqual([2, 1]);
    expect([a.lookAhead(into, fds), fds.length, a.receive(into, fds), fds.length]).toEqual([2, 2, 2, 3]);
    expect(fds.map((fd) => fstatSync(fd).ino)).toEqual(fds.map(() => fstatSync(0).ino));
    b.close();
    expect(a.lookAhead(into, fds)).toBe(0);
    for (const fd of fds) closeFd(fd);
    a.close();
  });

  it('disconnects the other end although another descriptor for the socket is open', () => {
    const [a, b] = UnixSocket.pair();
    const other = duplicateFd(a.fd);
    a.shutdown();
    a.close();
    expect(b.receive(new Uint8Array(1), [])).toBe(0);
    closeFd(other);
    b.close();
  });

  it('reports pending data without receiving it, and the data that the other end has not received', () => {
    const [a, b] = UnixSocket.pair();
    expect([b.peek(), a.unreadBytes()]).toEqual(['nothing', 0]);
    a.send(Uint8Array.of(7));
    expect([b.peek(), b.peek()]).toEqual(['data', 'data']);
    expect(a.unreadBytes()).toBeGreaterThan(0);
    expect(b.receive(new Uint8Array(4), [])).toBe(1);
    expect([b.peek(), a.unreadBytes()]).toEqual(['nothing', 0]);
    a.close();
    expect(b.peek()).toBe('end');
    b.close();
    expect(b.peek()).toBe('end');
  });
});

describe('a peek', () => {
  it('copies bytes and descriptors, and leaves them in the socket', () => {
    const before = openFds();
    const [a, b] = UnixSocket.pair();
    expect(b.peekBytes(new Uint8Array(1), [])).toEqual({ length: 0, ended: false });
    a.send(Uint8Array.of(1, 2));
    a.send(Uint8Array.of(3), [0]);
    a.send(Uint8Array.of(4, 5));
    a.send(Uint8Array.of(6), [0, 1]);
    for (const length of [3, 4, 5]) {
      const into = new Uint8Array(length);
      const fds: number[] = [];
      expect(b.peekBytes(into, fds)).toEqual({ length, ended: false });
      expect([[...into], fds.length]).toEqual([[1, 2, 3, 4, 5].slice(0, length), 1]);
      for (const fd of fds) closeFd(fd);
    }
    b.discard(5);
    const fds: number[] = [];
    expect(b.peekBytes(new Uint8Array(9), fds)).toEqual({ length: 1, ended: false });
    a.close();
    expect(b.peekBytes(new Uint8Array(9), [...fds])).toEqual({ length: 1, ended: true });
    expect(fds).toHaveLength(2);
    for (const fd of fds) closeFd(fd);
    b.discard(1);
    expect(b.peekBytes(new Uint8Array(9), [])).toEqual({ length: 0, ended: true });
    b.close();
    expect(openFds()).toBe(before);
  });
});
