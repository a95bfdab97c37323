import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  fstatSync,
  ftruncateSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statfsSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { closeFd } from '@ivshmem/linux';
import { mapShared, openSharedMemoryObject, sealsOf } from '@ivshmem/linux/memory';
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

  it('is sealed if requested', () => {
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

  it('survives a client that truncates it repeatedly at any time', async () => {
    const memory = createSharedMemory({ kind: 'posix', name }, 1 << 16);
    const script = `
      const { ftruncateSync, openSync } = require('node:fs');
      const fd = openSync('/dev/shm/${name}', 'r+');
      console.log('ready');
      for (const end = Date.now() + 60_000; Date.now() < end; ) ftruncateSync(fd, 0);
    `;
    const client = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    const exit = once(client, 'exit');
    await once(client.stdout, 'data');
    for (let i = 0; i < 5000; i++) {
      memory.clearState(i % 1024);
      expect(memory.state(i % 1024)).toBe(0);
      memory.clear(0x4000, 0x1000);
    }
    client.kill('SIGKILL');
    await exit;
    memory.close();
  });

  it('replaces the object of a dead server, whose users keep it', async () => {
    // What a server leaves behind that is killed between two system calls.
    const script = `
      import { createSharedMemory } from '${new URL('../../dist/server/shared-memory.js', import.meta.url)}';
      createSharedMemory({ kind: 'posix', name: '${name}' }, 8192);
      process.kill(process.pid, 'SIGKILL');
    `;
    const server = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'inherit' });
    expect(await once(server, 'exit')).toEqual([null, 'SIGKILL']);
    const user = openSharedMemoryObject(`/${name}`);
    const memory = createSharedMemory({ kind: 'posix', name }, 4096);
    const opened = openSharedMemoryObject(`/${name}`);
    expect(fstatSync(opened).ino).toBe(fstatSync(memory.fd).ino);
    expect(memory.state(0)).toBe(0);
    expect(fstatSync(user).size).toBe(8192);
    closeFd(opened);
    closeFd(user);
    memory.close();
  });

  it("leaves another program's object of that name alone", () => {
    writeFileSync(`/dev/shm/${name}`, 'precious');
    expect(() => createSharedMemory({ kind: 'posix', name }, 4096)).toThrow(
      `shm_open /${name}: EEXIST: not an object of an ivshmem server: choose another name or remove /dev/shm/${name}`,
    );
    expect(readFileSync(`/dev/shm/${name}`, 'utf8')).toBe('precious');
    rmSync(`/dev/shm/${name}`);
  });

  it('fails if a running server uses the object, and removes only its own object', () => {
    const memory = createSharedMemory({ kind: 'posix', name }, 4096);
    expect(() => createSharedMemory({ kind: 'posix', name }, 4096)).toThrow('in use by another server');
    rmSync(`/dev/shm/${name}`);
    const successor = createSharedMemory({ kind: 'posix', name }, 4096);
    memory.close();
    expect(existsSync(`/dev/shm/${name}`)).toBe(true);
    successor.close();
  });

  it('names the path in errors', () => {
    expect(() => createSharedMemory({ kind: 'directory', path: '/nonexistent' }, 4096)).toThrow(
      '/nonexistent',
    );
    writeFileSync(`${directory}/file`, '');
    expect(() => createSharedMemory({ kind: 'directory', path: `${directory}/file` }, 4096)).toThrow(
      'ENOTDIR',
    );
  });

  it.runIf(isRoot)('fails at startup, not with SIGBUS later, if the file system is too small', () => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1M', 'none', directory]);
    try {
      expect(() => createSharedMemory({ kind: 'directory', path: directory }, 1 << 21)).toThrow(
        new RegExp(`^fallocate file in ${directory}: ENOSPC: needs 2097152 bytes, and .* has 1048576 free`),
      );
      expect(readdirSync(directory)).toEqual([]);
      expect(statfsSync(directory).bfree).toBe(statfsSync(directory).blocks);
    } finally {
      execFileSync('umount', [directory]);
    }
  });

  it.runIf(isRoot)('keeps its reservation when cleared and when a client truncates it', () => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1M', 'none', directory]);
    try {
      const size = 1 << 19;
      const memory = createSharedMemory({ kind: 'directory', path: directory }, size);
      const reserved = statfsSync(directory).bfree;
      {
        using mapping = mapShared(memory.fd, size, { write: true });
        new Uint8Array(mapping.buffer).fill(7);
        memory.clear(4096, size - 8192);
        expect(statfsSync(directory).bfree).toBe(reserved);
        const bytes = new Uint8Array(mapping.buffer);
        expect([bytes[4095], bytes[4096], bytes[size - 4097], bytes[size - 4096]]).toEqual([7, 0, 0, 7]);
        memory.clear(0, size);
        expect(bytes.every((byte) => byte === 0)).toBe(true);
        expect(statfsSync(directory).bfree).toBe(reserved);
      }
      ftruncateSync(memory.fd, 4096);
      memory.clearState(0);
      expect(statfsSync(directory).bfree).toBe(reserved);
      memory.close();
    } finally {
      execFileSync('umount', [directory]);
    }
  });

  it('of a memfd allocates pages when used, and frees them when cleared', () => {
    const memory = createSharedMemory({ kind: 'memfd', seal: true }, 2 ** 30);
    const blocks = () => fstatSync(memory.fd).blocks * 512;
    expect(blocks()).toBeLessThan(1 << 18);
    writeSync(memory.fd, new Uint8Array(1 << 20).fill(1), 0, 1 << 20, 2 ** 29);
    expect(blocks()).toBeGreaterThanOrEqual(1 << 20);
    memory.clear(0, 2 ** 30);
    expect(blocks()).toBeLessThan(1 << 18);
    memory.close();
  });

  it.runIf(isRoot)('clears ranges on a file system without holes', () => {
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

  /** Runs the test with four huge pages. Returns false if the machine has none. */
  function withHugePages(test: () => void): boolean {
    const original = readFileSync(hugePages, 'utf8');
    writeFileSync(hugePages, String(Number(original) + 4));
    try {
      const free = /^HugePages_Free:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'));
      if (Number(free?.[1] ?? 0) < 4) return false;
      test();
      return true;
    } finally {
      writeFileSync(hugePages, original);
    }
  }

  function expectToClearSections(memory: SharedMemory, pageSize: number): void {
    using mapping = mapShared(memory.fd, memory.size, { write: true });
    const bytes = new Uint8Array(mapping.buffer).fill(0x33);
    expect(memory.state(5)).toBe(0x33333333);
    memory.clearState(5);
    expect([memory.state(4), memory.state(5), memory.state(6)]).toEqual([0x33333333, 0, 0x33333333]);
    bytes.fill(0x33);
    const [from, to] = [pageSize / 2, 3 * pageSize + 8192];
    memory.clear(from, to - from);
    expect(bytes.subarray(0, from).every((byte) => byte === 0x33)).toBe(true);
    expect(bytes.subarray(from, to).every((byte) => byte === 0)).toBe(true);
    expect(bytes.subarray(to).every((byte) => byte === 0x33)).toBe(true);
    memory.close();
  }

  const canReserve = isRoot && existsSync(hugePages);

  it.runIf(canReserve)('of hugetlbfs consists of whole pages, and can be cleared in part', (context) => {
    const done = withHugePages(() => {
      execFileSync('mount', ['-t', 'hugetlbfs', 'none', directory]);
      try {
        const small = createSharedMemory({ kind: 'directory', path: directory }, 1 << 16);
        const pageSize = small.size;
        expect(pageSize).toBeGreaterThan(1 << 16);
        small.close();
        expectToClearSections(
          createSharedMemory({ kind: 'directory', path: directory }, 4 * pageSize),
          pageSize,
        );
        expect(() => createSharedMemory({ kind: 'directory', path: directory }, 64 * pageSize)).toThrow(
          /^mmap file in .*: ENOMEM: needs 64 huge pages of \d+ bytes, and at most \d+ are free: raise \/proc/,
        );
      } finally {
        execFileSync('umount', [directory]);
      }
    });
    if (!done) context.skip('no huge pages to be had');
  });

  it.runIf(canReserve)('of huge pages is a sealed memfd, and keeps its pages', (context) => {
    const done = withHugePages(() => {
      const pageSize = 2 ** 21;
      const source = { kind: 'memfd', seal: true, hugePageSize: pageSize } as const;
      const memory = createSharedMemory(source, 4 * pageSize);
      expect(memory.description).toBe('sealed memfd of huge pages of 2097152 bytes');
      expect(sealsOf(memory.fd)).not.toBe(0);
      const kernelPageSize = /^KernelPageSize:\s+2048 kB/m;
      {
        using mapping = mapShared(memory.fd, memory.size);
        const at = mapping.address.toString(16);
        const maps = readFileSync('/proc/self/smaps', 'utf8');
        expect(maps.slice(maps.indexOf(`\n${at}-`)).slice(0, 1000)).toMatch(kernelPageSize);
      }
      // All are reserved, including those of a cleared section: no other process gets any.
      const other = () => createSharedMemory(source, 4 * pageSize);
      expect(other).toThrow(/ENOMEM: needs 4 huge pages of 2097152 bytes, and at most \d+ are free: raise/);
      memory.clear(pageSize, 2 * pageSize);
      expect(other).toThrow('ENOMEM');
      expectToClearSections(memory, pageSize);
      other().close();
    });
    if (!done) context.skip('no huge pages to be had');
  });
});
