import { openSync, readdirSync, writeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { duplicateFd } from '../fd.ts';
import { UnixSocket } from '../socket/unix-socket.ts';
import { createMemfd } from './memfd.ts';
import { StateMemory } from './state-memory.ts';

describe('state memory', () => {
  let before: number;
  const openFds = () => readdirSync('/proc/self/fd').length;
  beforeEach(() => {
    before = openFds();
  });
  afterEach(() => expect(openFds()).toBe(before));

  it('keeps its data for the next process', () => {
    const state = StateMemory.create('device', 3, 1000);
    const fd = duplicateFd(state.fd);
    new Uint32Array(state.mapping.buffer, state.offset, 250)[249] = 77;
    state.close();
    const adopted = StateMemory.adopt(fd, 'device', 3, 1000) as StateMemory;
    expect(adopted).toMatchObject({ kind: 'device', version: 3, size: 1000, offset: 64 });
    expect(new Uint32Array(adopted.mapping.buffer, adopted.offset, 250)[249]).toBe(77);
    adopted.close();
    adopted.close();
  });

  it.each<[string, () => number, RegExp]>([
    ['another kind of state', () => left('server', 1, 64), /is that of something else/],
    ['another version', () => left('device', 2, 64), /has version 2, and this program reads version 1/],
    ['another size', () => left('device', 1, 128), /has 128 bytes instead of 64/],
    ['a false size', () => altered(12, 63), /has 64 bytes instead of 63/],
    ['another header', () => altered(0, 1), /has no header/],
    ['zeros', () => createMemfd('ivshmem-test', 128), /has no header/],
    ['too short a file', () => createMemfd('ivshmem-test', 63), /has 63 bytes/],
    ['an empty file', () => createMemfd('ivshmem-test', 0), /has 0 bytes/],
    ['a huge file', () => createMemfd('ivshmem-test', 2 ** 40), /has 1099511627776 bytes/],
    ['an unsealed file', () => createMemfd('ivshmem-test', 128, { seal: false }), /is not in a sealed memfd/],
    ['a file on disk', () => openSync('/etc/passwd', 'r'), /is not in a sealed memfd/],
    ['a directory', () => openSync('/', 'r'), /is not in a sealed memfd/],
    ['a socket', socket, /is not in a sealed memfd/],
    ['a read-only descriptor', readOnly, /^mmap state of device: EACCES/],
  ])('rejects %s', (_what, make, reason) => {
    expect(StateMemory.adopt(make(), 'device', 1, 64)).toMatch(reason);
  });
});

function left(kind: string, version: number, size: number): number {
  using state = StateMemory.create(kind, version, size);
  return duplicateFd(state.fd);
}

/** State whose header has another word at `offset`. */
function altered(offset: number, value: number): number {
  const fd = left('device', 1, 64);
  writeSync(fd, Uint32Array.of(value), 0, 4, offset);
  return fd;
}

function socket(): number {
  const [a, b] = UnixSocket.pair();
  b.close();
  return a.fd;
}

function readOnly(): number {
  using state = StateMemory.create('device', 1, 64);
  return openSync(`/proc/self/fd/${state.fd}`, 'r');
}
