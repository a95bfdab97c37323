import { execFileSync } from 'node:child_process';
import {
  existsSync,
  fstatSync,
  ftruncateSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { closeFd, mapShared, openSharedMemoryObject, sealsOf } from '@ivshmem/linux';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createSharedMemory, type SharedMemory } from './shared-memory.ts';

const openFds = () => readdirSync('/proc/self/fd').length;
const isRoot = process.geteuid?.() === 0;
const name = `shared-memory-test-${process.pid}`;

function bytesOf(memory: SharedMemory, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  readSync(memory.fd, bytes, 0, length, offset);
  return bytes;
}

describe('shared memory', () => {
  let directory: string;
  let before: number;

  beforeEach(() => {
    directory = mkdtempSync('/tmp/shared-memory-');
    before = openFds();
  });

  afterEach(() => {
    expect(openFds()).toBe(before);
    expect(existsSync(`/dev/shm/${name}`)).toBe(false);
    rmSync(directory, { recursive: true });
  });

  it.each([
    { kind: 'memfd', seal: true },
    { kind: 'memfd', seal: false },
    { kind: 'posix', name },
    { kind: 'posix', name: `/${name}` },
    { kind: 'directory', path: '/dev/shm' },
    { kind: 'directory', path: '/tmp' },
  ] as const)('$kind $seal$name$path: has its size, is zeroed, clears ranges and states', (source) => {
    const memory = createSharedMemory(source, 1 << 16);
    expect(memory.size).toBe(1 << 16);
    expect(fstatSync(memory.fd).size).toBe(1 << 16);
    expect(bytesOf(memory, 0, 1 << 16).every((byte) => byte === 0)).toBe(true);
    writeSync(memory.fd, new Uint8Array(1 << 16).fill(0x77), 0, 1 << 16, 0);
    expect(memory.state(1023)).toBe(0x77777777);
    memory.clearState(1023);
    expect(memory.state(1023)).toBe(0);
    expect(memory.state(1022)).toBe(0x77777777);
    memory.clear(0x4000, 0x2000);
    memory.clear(0, 0);
    expect(bytesOf(memory, 0x4000, 0x2000).every((byte) => byte === 0)).toBe(true);
    expect([bytesOf(memory, 0x3fff, 1)[0], bytesOf(memory, 0x6000, 1)[0]]).toEqual([0x77, 0x77]);
    memory.close();
  });

  it('is sealed where that is asked for', () => {
    const sealed = createSharedMemory({ kind: 'memfd', seal: true }, 4096);
    const open = createSharedMemory({ kind: 'memfd', seal: false }, 4096);
    expect(sealsOf(sealed.fd)).not.toBe(0);
    expect(sealsOf(open.fd)).toBe(0);
    sealed.close();
    open.close();
  });

  it('survives a client that truncates what is not sealed', () => {
    const memory = createSharedMemory({ kind: 'posix', name }, 1 << 16);
    ftruncateSync(memory.fd, 0);
    expect(memory.state(0)).toBe(0);
    ftruncateSync(memory.fd, 0);
    memory.clearState(3);
    ftruncateSync(memory.fd, 0);
    memory.clear(0x4000, 0x1000);
    expect(fstatSync(memory.fd).size).toBe(1 << 16);
    memory.close();
  });

  it('replaces an object that a dead server has left, whose users keep it', () => {
    writeFileSync(`/dev/shm/${name}`, 'left behind');
    const user = openSharedMemoryObject(`/${name}`);
    const memory = createSharedMemory({ kind: 'posix', name }, 4096);
    const opened = openSharedMemoryObject(`/${name}`);
    expect(fstatSync(opened).ino).toBe(fstatSync(memory.fd).ino);
    expect(memory.state(0)).toBe(0);
    expect(fstatSync(user).size).toBe(11);
    closeFd(opened);
    closeFd(user);
    memory.close();
  });

  it('leaves the object of a living server alone, and removes none but its own', () => {
    const memory = createSharedMemory({ kind: 'posix', name }, 4096);
    expect(() => createSharedMemory({ kind: 'posix', name }, 4096)).toThrow('another server uses it');
    rmSync(`/dev/shm/${name}`);
    const successor = createSharedMemory({ kind: 'posix', name }, 4096);
    memory.close();
    expect(existsSync(`/dev/shm/${name}`)).toBe(true);
    successor.close();
  });

  it('names what it cannot have', () => {
    expect(() => createSharedMemory({ kind: 'directory', path: '/nonexistent' }, 4096)).toThrow(
      '/nonexistent',
    );
    writeFileSync(`${directory}/file`, '');
    expect(() => createSharedMemory({ kind: 'directory', path: `${directory}/file` }, 4096)).toThrow(
      'ENOTDIR',
    );
  });

  it.runIf(isRoot)('fails at start, not by a signal later, where the file system is full', () => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4096', 'none', directory]);
    try {
      writeFileSync(`${directory}/filler`, new Uint8Array(4096));
      expect(() => createSharedMemory({ kind: 'directory', path: directory }, 1 << 16)).toThrow('ENOSPC');
      expect(readdirSync(directory)).toEqual(['filler']);
    } finally {
      execFileSync('umount', [directory]);
    }
  });

  it.runIf(isRoot)('clears ranges where the file system knows no holes', () => {
    execFileSync('mount', ['-t', 'ramfs', 'none', directory]);
    try {
      const memory = createSharedMemory({ kind: 'directory', path: directory }, 1 << 22);
      writeSync(memory.fd, new Uint8Array(1 << 22).fill(0x77), 0, 1 << 22, 0);
      memory.clear(0x1000, 0x300000);
      const bytes = bytesOf(memory, 0, 1 << 22);
      expect(bytes.subarray(0x1000, 0x301000).every((byte) => byte === 0)).toBe(true);
      expect([bytes[0xfff], bytes[0x301000]]).toEqual([0x77, 0x77]);
      memory.close();
    } finally {
      execFileSync('umount', [directory]);
    }
  });

  const hugePages = '/proc/sys/vm/nr_hugepages';
  it.runIf(isRoot && existsSync(hugePages))('clears sections that are no whole huge pages', (context) => {
    const original = readFileSync(hugePages, 'utf8');
    writeFileSync(hugePages, '4');
    if (Number(readFileSync(hugePages, 'utf8')) < 4) {
      writeFileSync(hugePages, original);
      return context.skip('no huge pages to be had');
    }
    try {
      execFileSync('mount', ['-t', 'hugetlbfs', 'none', directory]);
      const memory = createSharedMemory({ kind: 'directory', path: directory }, 1 << 16);
      const pageSize = memory.size;
      expect(pageSize).toBeGreaterThan(1 << 16);
      memory.clearState(0);
      memory.close();
      const large = createSharedMemory({ kind: 'directory', path: directory }, 4 * pageSize);
      expect(large.size).toBe(4 * pageSize);
      using mapping = mapShared(large.fd, large.size, { write: true });
      const bytes = new Uint8Array(mapping.buffer).fill(0x33);
      const [from, to] = [pageSize / 2, 3 * pageSize + 8192];
      large.clear(from, to - from);
      expect(bytes.subarray(0, from).every((byte) => byte === 0x33)).toBe(true);
      expect(bytes.subarray(from, to).every((byte) => byte === 0)).toBe(true);
      expect(bytes.subarray(to).every((byte) => byte === 0x33)).toBe(true);
      large.close();
    } finally {
      writeFileSync(hugePages, original);
      execFileSync('umount', [directory]);
    }
  });
});
