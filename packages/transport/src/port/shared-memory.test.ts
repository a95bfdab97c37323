import { mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createMemfd } from '@ivshmem/linux/memory';
import { createEventFd } from '@ivshmem/linux/wait';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Section } from '../protocol/memory-layout.ts';
import { LayoutError } from '../protocol/memory-layout.ts';
import { SharedMemory } from './shared-memory.ts';

const openFds = () => readdirSync('/proc/self/fd').length;
let before: number;
beforeEach(() => {
  before = openFds();
});
afterEach(() => {
  expect(openFds()).toBe(before);
});

/** Permissions and size of the mapping that begins where a section does, as the kernel has them. */
function mappingOf({ address }: Section): { permissions: string; size: number } {
  const start = address.toString(16);
  const line = readFileSync('/proc/self/maps', 'latin1')
    .split('\n')
    .find((mapping) => mapping.startsWith(`${start}-`));
  const [range, permissions] = line!.split(' ');
  return { permissions: permissions!, size: Number.parseInt(range!.split('-')[1]!, 16) - address };
}

describe('SharedMemory', () => {
  it('is writable for a peer only where the specification allows it', () => {
    using memory = new SharedMemoryOf(0x1000 + 0x2000 + 3 * 0x3000, 1, 3, 0x3000);
    expect(mappingOf(memory.readWrite!)).toEqual({ permissions: 'rw-s', size: 0x2000 });
    expect(mappingOf(memory.output(1)!)).toEqual({ permissions: 'rw-s', size: 0x3000 });
    for (const other of [0, 2]) {
      const section = memory.output(other)!;
      expect(mappingOf(section).permissions).toBe('r--s');
      expect([section.length, section.buffer.byteLength]).toEqual([0x3000, 0x3000]);
    }
  });

  it('maps a section once', () => {
    using memory = new SharedMemoryOf(0x4000, 0, 2, 0x1000);
    expect(memory.output(1)).toBe(memory.output(1));
    expect(memory.output(0)).toBe(memory.output(0));
  });

  it('has no sections of size 0', () => {
    using memory = new SharedMemoryOf(0x1000, 0, 2, 0);
    expect([memory.output(0), memory.output(1), memory.readWrite]).toEqual([null, null, null]);
  });

  it('rejects impossible peers', () => {
    using memory = new SharedMemoryOf(0x4000, 0, 2, 0x1000);
    for (const peer of [-1, 2, 0.5, Number.NaN, 2 ** 32]) {
      expect(() => memory.output(peer)).toThrow(`peer ${peer}: only 2 peers are possible`);
    }
  });

  it.each([
    [0x3fff, 0, 2, 0x1000],
    [0x2000, 0, 2, 0x1000],
    [0, 0, 2, 0],
    [0x4000, 0, 2, 0x1001],
    [0x4000, 2, 2, 0x1000],
    [0x4000, 0, 1, 0x1000],
    [0x4000, 0, 1025, 0],
  ])(
    'rejects a file of %i bytes for peer %i of %i with %i bytes each',
    (size, id, maxPeers, outputSectionSize) => {
      const fd = createMemfd('ivshmem-test', size);
      expect(() => new SharedMemory(fd, id, maxPeers, outputSectionSize)).toThrow(LayoutError);
    },
  );

  it('rejects a descriptor that is no memory', () => {
    expect(() => new SharedMemory(createEventFd(), 0, 2, 0x1000)).toThrow(LayoutError);
  });

  it('rejects a read-only file', () => {
    const directory = mkdtempSync(join(tmpdir(), 'ivshmem-'));
    try {
      writeFileSync(join(directory, 'memory'), new Uint8Array(0x4000));
      const fd = openSync(join(directory, 'memory'), 'r');
      expect(() => new SharedMemory(fd, 0, 2, 0x1000)).toThrow(/^mmap shared memory: EACCES: [^\n]+$/);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  it('has a state table of zeros and no sections once it is closed', () => {
    const memory = new SharedMemoryOf(0x4000, 0, 2, 0x1000);
    memory.stateTable[1] = 3;
    const { address } = memory.output(1)!;
    memory.close();
    memory.close();
    expect([...memory.stateTable]).toEqual([0, 0]);
    expect(() => memory.output(1)).toThrow('closed');
    expect(readFileSync('/proc/self/maps', 'latin1')).not.toMatch(
      new RegExp(`^${address.toString(16)}-`, 'm'),
    );
  });
});

/** Over a new file of `size` bytes. */
class SharedMemoryOf extends SharedMemory {
  constructor(size: number, id: number, maxPeers: number, outputSectionSize: number) {
    super(createMemfd('ivshmem-test', size), id, maxPeers, outputSectionSize);
  }
}
