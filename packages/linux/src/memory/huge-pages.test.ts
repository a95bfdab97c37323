import { existsSync, readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createMemfd } from './memfd.ts';

describe('memory of huge pages', () => {
  it('is rejected for an unsupported page size', () => {
    expect(() => createMemfd('test', 1 << 20, { hugePageSize: 12288 })).toThrow(
      'memfd_create test: ENODEV: this machine has no huge pages of 12288 bytes',
    );
  });

  it.runIf(existsSync('/sys/kernel/mm/hugepages/hugepages-2048kB'))(
    'is rejected with a remedy if there are too few pages, and leaves nothing behind',
    () => {
      const before = readdirSync('/proc/self/fd').length;
      expect(() => createMemfd('test', 2 ** 45, { hugePageSize: 2 ** 21 })).toThrow(
        /^mmap memfd test: ENOMEM: needs 16777216 huge pages of 2097152 bytes, and at most \d+ are free: raise \/proc\/sys\/vm\/nr_hugepages$/,
      );
      expect(readdirSync('/proc/self/fd')).toHaveLength(before);
    },
  );
});
