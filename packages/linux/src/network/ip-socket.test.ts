import { readdirSync } from 'node:fs';
import { expect, it } from 'vitest';
import * as libc from '../libc.ts';
import { mapPrivate } from '../memory/memory.ts';
import { AF_INET, AF_INET6 } from './ip-address.ts';
import { openIpSocket } from './ip-socket.ts';

const openFds = () => readdirSync('/proc/self/fd').length;

it('TCP over the loopback interface: connect, accept, end of stream', () => {
  const fds = openFds();
  {
    using memory = mapPrivate(16);
    using listener = openIpSocket(AF_INET, 'tcp', 2000);
    listener.bind('127.0.0.1', 0);
    listener.listen();
    using client = openIpSocket(AF_INET, 'tcp', 2000);
    expect(client.connect('127.0.0.1', listener.localPort)).toBe(true);
    using server = listener.accept()!;
    Buffer.from(memory.buffer).write('ivshmem');
    expect(libc.send(client.fd, memory.address, 7, 0)).toBe(7);
    expect(libc.recv(server.fd, memory.address + 8, 8, 0)).toBe(7);
    expect(Buffer.from(memory.buffer).toString('latin1', 8, 15)).toBe('ivshmem');
    client.shutdownWrite();
    expect(libc.recv(server.fd, memory.address, 8, 0)).toBe(0);
    server.abort();
    // Reset, rather than closed in the normal way.
    expect(libc.recv(client.fd, memory.address, 8, 0)).toBe(-1);
    expect(libc.errno()).toBe(104);
  }
  expect(openFds()).toBe(fds);
});

it('UDP: replies to the first sender', () => {
  using memory = mapPrivate(16);
  using server = openIpSocket(AF_INET6, 'udp', 2000);
  server.bind('::1', 0);
  using client = openIpSocket(AF_INET6, 'udp', 2000);
  expect(client.connect('::1', server.localPort)).toBe(true);
  expect(libc.send(client.fd, memory.address, 5, 0)).toBe(5);
  expect(server.connectToSender()).toBe(true);
  expect(libc.recv(server.fd, memory.address, 16, 0)).toBe(5);
  expect(libc.send(server.fd, memory.address, 6, 0)).toBe(6);
  expect(libc.recv(client.fd, memory.address, 16, 0)).toBe(6);
});

it('no call blocks for longer than the timeout', () => {
  using listener = openIpSocket(AF_INET, 'tcp', 20);
  listener.bind('127.0.0.1', 0);
  listener.listen();
  expect(listener.accept()).toBeNull();
  using datagrams = openIpSocket(AF_INET, 'udp', 20);
  datagrams.bind('127.0.0.1', 0);
  expect(datagrams.connectToSender()).toBe(false);
});

it('names the address that cannot be reached or bound', () => {
  const fds = openFds();
  {
    using listener = openIpSocket(AF_INET, 'tcp', 100);
    listener.bind('127.0.0.1', 0);
    const port = listener.localPort;
    using other = openIpSocket(AF_INET, 'tcp', 100);
    expect(() => other.bind('127.0.0.1', port)).toThrow(`bind 127.0.0.1 port ${port}: EADDRINUSE`);
    // Bound, but not listening.
    expect(() => other.connect('127.0.0.1', port)).toThrow(`connect 127.0.0.1 port ${port}: ECONNREFUSED`);
    expect(() => other.bind('localhost', 0)).toThrow(RangeError);
  }
  expect(openFds()).toBe(fds);
});
