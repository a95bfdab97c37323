import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeFd } from '../fd.ts';
import { dataRanges, punchHole, reserveRange } from './file-range.ts';
import { createMemfd } from './memfd.ts';
import { mapShared } from './memory.ts';

const isRoot = process.geteuid?.() === 0;
const PAGE = 65536;

describe('ranges of a file', () => {
  it('are data after a write or an access, but not after punching a hole', () => {
    const fd = createMemfd('ranges', 16 * PAGE);
    const ranges = () => [...dataRanges(fd, PAGE, 16 * PAGE)];
    expect(ranges()).toEqual([]);
    writeSync(fd, Uint8Array.of(1), 0, 1, 0);
    expect(ranges()).toEqual([]);
    writeSync(fd, new Uint8Array(2 * PAGE).fill(1), 0, 2 * PAGE, 3 * PAGE);
    {
      using mapping = mapShared(fd, PAGE, { offset: 15 * PAGE, write: true });
      new Uint8Array(mapping.buffer).fill(1);
    }
    expect(ranges()).toEqual([
      { from: 3 * PAGE, to: 5 * PAGE },
      { from: 15 * PAGE, to: 16 * PAGE },
    ]);
    expect([...dataRanges(fd, 4 * PAGE, 12 * PAGE)]).toEqual([{ from: 4 * PAGE, to: 5 * PAGE }]);
    punchHole(fd, 3 * PAGE, 2 * PAGE);
    expect(ranges()).toEqual([{ from: 15 * PAGE, to: 16 * PAGE }]);
    expect([...dataRanges(fd, 20 * PAGE, 24 * PAGE)]).toEqual([]);
    closeFd(fd);
  });

  it('are not data if they are only reserved', () => {
    const fd = createMemfd('reserved', 4 * PAGE, { seal: false });
    expect(reserveRange(fd, 0, 4 * PAGE, 'reserved')).toBe(true);
    expect([...dataRanges(fd, 0, 4 * PAGE)]).toEqual([]);
    closeFd(fd);
  });

  describe.runIf(isRoot)('on a small file system', () => {
    let directory: string;
    beforeEach(() => {
      directory = mkdtempSync('/tmp/file-range-');
    });
    afterEach(() => {
      execFileSync('umount', [directory]);
      rmSync(directory, { recursive: true });
    });

    it('are reserved, or rejected with the free space, which remains unchanged', () => {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1M', 'none', directory]);
      const fd = openSync(`${directory}/file`, 'wx+');
      ftruncateSync(fd, 2 << 20);
      expect(() => reserveRange(fd, 0, 2 << 20, 'the file')).toThrow(
        /^fallocate the file: ENOSPC: needs 2097152 bytes, and its file system has \d+ free: enlarge that/,
      );
      const free = statfsSync(directory).bfree;
      expect(reserveRange(fd, 0, 1 << 19, 'the file')).toBe(true);
      expect(statfsSync(directory).bfree).toBeLessThan(free);
      closeSync(fd);
    });

    it('cannot be reserved on ramfs, and may all be data', () => {
      execFileSync('mount', ['-t', 'ramfs', 'none', directory]);
      const fd = openSync(`${directory}/file`, 'wx+');
      ftruncateSync(fd, 4 * PAGE);
      expect(reserveRange(fd, 0, 4 * PAGE, 'the file')).toBe(false);
      expect([...dataRanges(fd, PAGE, 3 * PAGE)]).toEqual([{ from: PAGE, to: 3 * PAGE }]);
      closeSync(fd);
    });
  });
});
