import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { closeFd } from '../fd.ts';
import { createMemfd } from './memfd.ts';
import { mapShared } from './memory.ts';

const MiB = 2 ** 20;
const RESERVE = '/proc/sys/vm/nr_hugepages';
const before = reservation();

function reservation(): string | null {
  try {
    return readFileSync(RESERVE, 'latin1').trim();
  } catch {
    return null;
  }
}

/** A file of two huge pages, or why there is none. */
function hugeFile(): number | string {
  if (before === null) return 'this kernel has no huge pages';
  try {
    writeFileSync(RESERVE, String(Number(before) + 2));
    return createMemfd('huge', 4 * MiB, { hugePageSize: 2 * MiB });
  } catch (error) {
    return (error as Error).message;
  }
}

const file = hugeFile();

afterAll(() => {
  if (typeof file === 'number') closeFd(file);
  if (before !== null && before !== reservation()) writeFileSync(RESERVE, before);
});

describe.skipIf(typeof file === 'string')(
  `a file of huge pages${typeof file === 'string' ? ` (skipped: ${file})` : ''}`,
  () => {
    it('can be mapped from any page on', () => {
      using whole = mapShared(file as number, 4 * MiB, { write: true });
      using part = mapShared(file as number, 4096, { offset: 2 * MiB - 4096, write: true });
      using across = mapShared(file as number, 8192, { offset: 2 * MiB - 4096 });
      expect([part.length, part.buffer.byteLength, across.buffer.byteLength]).toEqual([4096, 4096, 8192]);
      new Uint8Array(part.buffer)[4095] = 7;
      expect(new Uint8Array(whole.buffer)[2 * MiB - 1]).toBe(7);
      expect(new Uint8Array(across.buffer)[4095]).toBe(7);
    });

    it('is unmapped with all that surrounds the part', () => {
      const mapped = () => readFileSync('/proc/self/maps', 'latin1').split('memfd:huge').length;
      const before = mapped();
      const part = mapShared(file as number, 4096, { offset: 2 * MiB - 4096 });
      expect(mapped()).toBe(before + 1);
      part.close();
      expect(mapped()).toBe(before);
    });
  },
);
