import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writePidFile } from './pid-file.ts';

describe('the PID file of a daemon', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync('/tmp/pid-file-');
  });
  afterEach(() => {
    rmSync(directory, { recursive: true });
  });

  it('replaces that of a predecessor, and is removed', () => {
    const path = join(directory, 'pid');
    writeFileSync(path, '123456789012');
    const remove = writePidFile(path);
    expect(readFileSync(path, 'utf8')).toBe(`${process.pid}\n`);
    remove();
    expect(existsSync(path)).toBe(false);
    remove();
    const keep = writePidFile(path);
    writeFileSync(path, '1\n');
    keep();
    expect(readFileSync(path, 'utf8')).toBe('1\n');
  });

  it('is not left empty on a full file system', () => {
    // With "ulimit -f 0" no file can grow. Node ignores SIGXFSZ.
    const path = join(directory, 'pid');
    const script = `import { writePidFile } from '${new URL('../../dist/service/pid-file.js', import.meta.url)}';
      try { writePidFile('${path}') } catch ({ message }) { console.log(message) }`;
    const argv = [
      '-c',
      'ulimit -f 0 && exec "$0" --input-type=module -e "$1" | cat',
      process.execPath,
      script,
    ];
    const { stdout, stderr } = spawnSync('sh', argv, { encoding: 'utf8' });
    expect({ stdout, stderr }).toEqual({
      stdout: `write PID file ${path}: EFBIG: file too large\n`,
      stderr: '',
    });
    expect(existsSync(path)).toBe(false);
  });

  it('is not written through a link that others may have created', () => {
    const [path, victim] = [join(directory, 'pid'), join(directory, 'victim')];
    writeFileSync(victim, 'precious');
    symlinkSync(victim, path);
    expect(() => writePidFile(path)).toThrow(
      `open PID file ${path}: EEXIST: is a link or not a regular file`,
    );
    expect(() => writePidFile(directory)).toThrow('EEXIST');
    expect(() => writePidFile(join(directory, 'missing', 'pid'))).toThrow('ENOENT');
    expect(readFileSync(victim, 'utf8')).toBe('precious');
  });
});
