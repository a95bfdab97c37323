import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { OptionError } from '@ivshmem/linux';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writePidFile } from '../service/pid-file.ts';
import { createHostServer } from './host-server.ts';
import { reasonOf } from './remedies.ts';

/** {@link reasonOf} of what a function throws. */
function reason(attempt: () => unknown): string {
  try {
    attempt();
  } catch (error) {
    return reasonOf(error);
  }
  throw new Error('it has not failed');
}

describe('a failed system call is one line with a remedy', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync('/tmp/remedies-');
  });
  afterEach(() => {
    rmSync(directory, { recursive: true });
  });

  it.runIf(process.geteuid?.() === 0)('on a read-only file system', () => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'ro', 'none', directory]);
    try {
      const remedy = 'choose a path on a writable file system, such as /run';
      const socketPath = join(directory, 'socket');
      expect(reason(() => createHostServer({ socketPath }))).toBe(
        `bind ${socketPath}: EROFS: read-only file system: ${remedy}`,
      );
      expect(reason(() => writePidFile(join(directory, 'pid')))).toBe(
        `open PID file ${directory}/pid: EROFS: read-only file system: ${remedy}`,
      );
      const sharedMemory = { kind: 'directory', path: directory } as const;
      expect(reason(() => createHostServer({ socketPath: `${directory}.socket`, sharedMemory }))).toMatch(
        new RegExp(`^EROFS: .*open '${directory}/ivshmem\\.[^']*': ${remedy}$`),
      );
    } finally {
      execFileSync('umount', [directory]);
    }
  });

  it('in a missing directory', () => {
    const socketPath = join(directory, 'missing', 'socket');
    expect(reason(() => createHostServer({ socketPath }))).toBe(
      `bind ${socketPath}: ENOENT: no such file or directory: create the directory first`,
    );
  });

  it('but has no second remedy, and other errors have none', () => {
    const taken = createHostServer({ socketPath: join(directory, 'socket') });
    expect(reason(() => createHostServer({ socketPath: join(directory, 'socket') }))).toMatch(
      /EADDRINUSE: another server answers there: stop it, or choose another path$/,
    );
    taken.close();
    const wrong = new OptionError('vectors', 'vectors 0: must be 1 to 64');
    expect(reasonOf(wrong)).toBe(wrong.message);
    expect(reasonOf('text')).toBe('text');
  });
});
