import { closeSync, existsSync, fstatSync, openSync, readdirSync, readSync, writeSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { closeFd } from '../fd.ts';
import { tryLockFile } from '../process/file-lock.ts';
import { punchHole } from './file-range.ts';
import { createMemfd } from './memfd.ts';
import {
  createSharedMemoryObject,
  openSharedMemoryObject,
  unlinkSharedMemoryObject,
} from './shared-memory-object.ts';

const openFds = () => readdirSync('/proc/self/fd').length;

describe('POSIX shared memory objects', () => {
  it('are created once, opened by name, and gone after unlink', () => {
    const before = openFds();
    const name = `/object-test-${process.pid}`;
    const created = createSharedMemoryObject(name)!;
    expect(createSharedMemoryObject(name)).toBeNull();
    const opened = openSharedMemoryObject(name);
    expect(fstatSync(opened).ino).toBe(fstatSync(created).ino);
    expect(fstatSync(opened).mode & 0o777).toBe(0o600);
    unlinkSharedMemoryObject(name);
    unlinkSharedMemoryObject(name);
    expect(existsSync(`/dev/shm${name}`)).toBe(false);
    expect(() => openSharedMemoryObject(name)).toThrow(`shm_open ${name}: ENOENT`);
    closeFd(created);
    closeFd(opened);
    expect(openFds()).toBe(before);
  });
});

describe('tryLockFile', () => {
  it('has one owner at a time; the next can lock once the first has closed', () => {
    const memory = createMemfd('lock', 4096);
    const first = openSync(`/proc/self/fd/${memory}`, 'r+');
    const second = openSync(`/proc/self/fd/${memory}`, 'r+');
    expect(tryLockFile(first)).toBe(true);
    expect(tryLockFile(second)).toBe(false);
    closeSync(first);
    expect(tryLockFile(second)).toBe(true);
    closeSync(second);
    closeFd(memory);
    expect(() => tryLockFile(-1)).toThrow('flock fd -1: EBADF');
  });
});

describe('punchHole', () => {
  it('zeroes only a range of a sealed memfd, and frees its memory', () => {
    const fd = createMemfd('hole', 1 << 20);
    writeSync(fd, new Uint8Array(1 << 20).fill(0xaa));
    const blocks = fstatSync(fd).blocks;
    expect(punchHole(fd, 8192, 65536)).toBe(true);
    expect(fstatSync(fd).size).toBe(1 << 20);
    expect(fstatSync(fd).blocks).toBe(blocks - 65536 / 512);
    const bytes = new Uint8Array(1 << 20);
    readSync(fd, bytes, 0, bytes.length, 0);
    expect(bytes.subarray(0, 8192).every((byte) => byte === 0xaa)).toBe(true);
    expect(bytes.subarray(8192, 8192 + 65536).every((byte) => byte === 0)).toBe(true);
    expect(bytes.subarray(8192 + 65536).every((byte) => byte === 0xaa)).toBe(true);
    closeFd(fd);
  });

  it('reports an invalid range or descriptor', () => {
    const fd = createMemfd('hole', 4096);
    expect(() => punchHole(fd, 0, 0)).toThrow('EINVAL');
    closeFd(fd);
    expect(() => punchHole(-1, 0, 4096)).toThrow('EBADF');
  });
});
