import { closeSync, openSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { closeFd, duplicateFd } from '../fd.ts';
import { createMemfd } from '../memory/memfd.ts';
import { isFileInUse, markFileInUse } from './file-lock.ts';

describe('a file that is marked as in use', () => {
  it('appears so to every other open file description, until the marking one is closed', () => {
    const fd = createMemfd('ivshmem-test', 4096);
    const mark = openSync(`/proc/self/fd/${fd}`, 'r+');
    const copy = duplicateFd(mark);
    try {
      expect(isFileInUse(fd)).toBe(false);
      markFileInUse(mark);
      expect(isFileInUse(fd)).toBe(true);
      // A description does not see its own lock.
      expect(isFileInUse(mark)).toBe(false);
      expect(() => markFileInUse(fd)).toThrow(/EAGAIN/);
      closeSync(mark);
      expect(isFileInUse(fd)).toBe(true);
      closeFd(copy);
      expect(isFileInUse(fd)).toBe(false);
    } finally {
      closeFd(fd);
    }
  });
});
