import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { check } from '../errors.ts';
import { closeFd } from '../fd.ts';
import * as libc from '../libc.ts';
import { sendUnixDatagram } from './datagram.ts';
import { AF_UNIX, SOCK_DGRAM, SOCK_NONBLOCK, socketAddress } from './unix-socket.ts';

const openFds = () => readdirSync('/proc/self/fd').length;

/** A bound datagram socket, and what it receives. */
function receiver(address: Uint8Array, length: number) {
  const fd = check(libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0), 'socket', 'test');
  check(libc.bind(fd, address, length), 'bind', 'test');
  return {
    receive() {
      const into = new Uint8Array(256);
      const received = check(libc.recvfrom(fd, into, into.length, 0, null, null), 'recvfrom', 'test');
      return Buffer.from(into.subarray(0, received)).toString();
    },
    close: () => closeFd(fd),
  };
}

describe('sendUnixDatagram', () => {
  it('reaches a socket by path, and names the path without a receiver', () => {
    const directory = mkdtempSync('/tmp/datagram-');
    const path = join(directory, 'socket');
    const before = openFds();
    expect(() => sendUnixDatagram(path, Buffer.from('x'))).toThrow(`sendto ${path}: ENOENT`);
    const address = socketAddress(path, 'bind');
    const socket = receiver(address, address.length);
    sendUnixDatagram(path, Buffer.from('READY=1\n'));
    sendUnixDatagram(path, Buffer.from('STOPPING=1'));
    expect([socket.receive(), socket.receive()]).toEqual(['READY=1\n', 'STOPPING=1']);
    expect(() => {
      for (let i = 0; i < 100_000; i++) sendUnixDatagram(path, Buffer.from('x'));
    }).toThrow('EAGAIN');
    socket.close();
    expect(() => sendUnixDatagram(path, Buffer.from('x'))).toThrow('ECONNREFUSED');
    expect(openFds()).toBe(before);
    rmSync(directory, { recursive: true });
  });

  it('reaches a socket in the abstract namespace', () => {
    const name = `datagram-test-${process.pid}`;
    const address = new Uint8Array(3 + name.length);
    address[0] = AF_UNIX;
    address.set(Buffer.from(name), 3);
    const socket = receiver(address, address.length);
    sendUnixDatagram(`@${name}`, Buffer.from('READY=1'));
    expect(socket.receive()).toBe('READY=1');
    socket.close();
    expect(() => sendUnixDatagram(`@${name}`, Buffer.from('x'))).toThrow('ECONNREFUSED');
    expect(() => sendUnixDatagram('x'.repeat(108), Buffer.from('x'))).toThrow('ENAMETOOLONG');
  });
});
