import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { closeFd } from '../fd.ts';
import { createEventFd } from '../wait/eventfd.ts';
import { openFilesLimit, raiseOpenFilesLimit, setOpenFilesLimit } from './open-files-limit.ts';

const ofKernel = () =>
  /^Max open files\s+(\d+)\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))!.slice(1).map(Number);

describe('the limit of open files', () => {
  it('matches the kernel, can be lowered and raised to the hard limit, and takes effect', () => {
    const { soft, hard } = openFilesLimit();
    expect([soft, hard]).toEqual(ofKernel());
    const fds: number[] = [];
    try {
      setOpenFilesLimit(200);
      expect(ofKernel()).toEqual([200, hard]);
      expect(() => {
        for (;;) fds.push(createEventFd());
      }).toThrow('EMFILE');
      expect(raiseOpenFilesLimit()).toBe(hard);
      expect(ofKernel()).toEqual([hard, hard]);
      expect(raiseOpenFilesLimit()).toBe(hard);
      expect(() => setOpenFilesLimit(hard + 1)).toThrow(
        `setrlimit RLIMIT_NOFILE ${hard + 1} of at most ${hard}: EINVAL`,
      );
    } finally {
      for (const fd of fds) closeFd(fd);
      setOpenFilesLimit(soft);
    }
  });
});
