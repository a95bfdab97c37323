import { describe, expect, it } from 'vitest';
import { closeFd } from '../fd.ts';
import { createMemfd } from './memfd.ts';
import { mapPrivate, mapShared, PAGE_SIZE, reserveShared } from './memory.ts';

describe('mapped memory', () => {
  it('reports an error if it cannot be mapped', () => {
    expect(() => reserveShared(-1, 0, 2 ** 52, 'too much')).toThrow('mmap too much: ');
    expect(() => mapPrivate(2 ** 40)).toThrow(`mmap ${2 ** 40} bytes of memory: EFBIG: Node cannot look at`);
    expect(() => mapShared(-1, PAGE_SIZE)).toThrow('mmap fd -1: EBADF');
    const fd = createMemfd('test', 2 * PAGE_SIZE);
    expect(() => mapShared(fd, PAGE_SIZE, { offset: 1, subject: 'half a page' })).toThrow(
      'mmap half a page: EINVAL',
    );
    closeFd(fd);
  });

  it('is shared by all mappings of a file', () => {
    const fd = createMemfd('test', 2 * PAGE_SIZE);
    using whole = mapShared(fd, 2 * PAGE_SIZE, { write: true });
    using half = mapShared(fd, PAGE_SIZE, { offset: PAGE_SIZE });
    closeFd(fd);
    new Uint8Array(whole.buffer)[PAGE_SIZE + 5] = 77;
    expect(new Uint8Array(half.buffer)[5]).toBe(77);
    expect([whole.length, half.length]).toEqual([2 * PAGE_SIZE, PAGE_SIZE]);
  });
});
