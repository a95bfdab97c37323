import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { closeFd } from '@ivshmem/linux';
import { UnixSocket } from '@ivshmem/linux/socket';
import { createEventFd, drainEventFd, signalEventFd } from '@ivshmem/linux/wait';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Outbox } from './outbox.ts';
import { SharedFd } from './shared-fd.ts';

const openFds = () => readdirSync('/proc/self/fd').length;

describe('Outbox', () => {
  let before: number;
  let server: UnixSocket;
  let client: UnixSocket;

  beforeEach(() => {
    before = openFds();
    [server, client] = UnixSocket.pair();
  });

  afterEach(() => {
    server.close();
    client.close();
    expect(openFds()).toBe(before);
  });

  it('sends in order what the socket accepts, and the rest after the client has read', () => {
    const outbox = new Outbox(server, 100_000);
    let pushed = 0;
    do outbox.push(Uint8Array.of(pushed & 0xff, pushed++ >> 8), null);
    while (outbox.flush() === 'sent');
    for (let i = 0; i < 50; i++) outbox.push(Uint8Array.of(pushed & 0xff, pushed++ >> 8), null);
    expect(outbox.length).toBe(51);
    const into = new Uint8Array(2);
    for (let i = 0; i < pushed; i++) {
      if (client.receive(into, []) === -1) {
        outbox.flush();
        client.receive(into, []);
      }
      expect(into[0]! | (into[1]! << 8)).toBe(i);
    }
    expect(outbox.flush()).toBe('sent');
    expect(outbox.length).toBe(0);
  });

  it('continues in the middle of a partly sent message', () => {
    const outbox = new Outbox(server, 2);
    const event = new SharedFd(createEventFd());
    const long = Uint8Array.from({ length: 1_000_000 }, (_, i) => i % 251);
    outbox.push(long, event);
    event.release();
    const fds: number[] = [];
    const received: number[] = [];
    const into = new Uint8Array(16384);
    while (received.length < long.length) {
      outbox.flush();
      const length = client.receive(into, fds);
      if (length > 0) for (let i = 0; i < length; i++) received.push(into[i]!);
    }
    expect(Buffer.compare(Uint8Array.from(received), long)).toBe(0);
    expect(fds).toHaveLength(1);
    closeFd(fds[0]!);
  });

  it('keeps a descriptor open until its message is sent, even if all others have released it', () => {
    const outbox = new Outbox(server, 2);
    const event = new SharedFd(createEventFd());
    expect(outbox.push(Uint8Array.of(1), event)).toBe(true);
    event.release();
    expect(outbox.flush()).toBe('sent');
    const fds: number[] = [];
    client.receive(new Uint8Array(1), fds);
    expect(signalEventFd(fds[0]!)).toBe(true);
    expect(drainEventFd(fds[0]!)).toBe(1n);
    closeFd(fds[0]!);
  });

  it('rejects messages beyond its capacity, and releases its descriptors on close()', () => {
    const outbox = new Outbox(server, 1);
    const event = new SharedFd(createEventFd());
    expect(outbox.push(Uint8Array.of(1), event)).toBe(true);
    expect(outbox.push(Uint8Array.of(2), event)).toBe(false);
    event.release();
    outbox.close();
    expect(outbox.length).toBe(0);
  });

  it('throws if the client has disconnected', () => {
    const outbox = new Outbox(server, 1);
    outbox.push(Uint8Array.of(1), null);
    client.close();
    expect(() => outbox.flush()).toThrow('EPIPE');
  });

  it.runIf(process.geteuid?.() === 0)('reports that too many descriptors of this user are in flight', () => {
    const limits = (soft: string) =>
      execFileSync('prlimit', ['--pid', String(process.pid), `--nofile=${soft}:`], { encoding: 'utf8' });
    const soft = execFileSync('prlimit', [
      '--pid',
      String(process.pid),
      '--nofile',
      '--raw',
      '--noheadings',
      '-o',
      'SOFT',
    ]);
    const outbox = new Outbox(server, 1000);
    const event = new SharedFd(createEventFd());
    for (let i = 0; i < 150; i++) outbox.push(Uint8Array.of(i), event);
    limits('100');
    // ETOOMANYREFS does not apply to root.
    process.seteuid!(65534);
    try {
      expect(outbox.flush()).toBe('congested');
    } finally {
      process.seteuid!(0);
      limits(soft.toString().trim());
    }
    expect(outbox.length).toBeGreaterThan(0);
    const fds: number[] = [];
    const into = new Uint8Array(1);
    for (let i = 0; i < 150; i++) {
      if (client.receive(into, fds) === -1) {
        outbox.flush();
        expect(client.receive(into, fds)).toBe(1);
      }
      expect(into[0]).toBe(i);
    }
    for (const fd of fds) closeFd(fd);
    event.release();
  });
});
