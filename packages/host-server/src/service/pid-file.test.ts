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

  it('is written, over what a predecessor has left, and removed', () => {
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

  it('is no link, which others may have put there', () => {
    const [path, victim] = [join(directory, 'pid'), join(directory, 'victim')];
    writeFileSync(victim, 'precious');
    symlinkSync(victim, path);
    expect(() => writePidFile(path)).toThrow(`open PID file ${path}: EEXIST: a link, or no regular file`);
    expect(() => writePidFile(directory)).toThrow('EEXIST');
    expect(() => writePidFile(join(directory, 'missing', 'pid'))).toThrow('ENOENT');
    expect(readFileSync(victim, 'utf8')).toBe('precious');
  });
});
