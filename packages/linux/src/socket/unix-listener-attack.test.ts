import {
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { UnixListener } from './unix-listener.ts';

/** What another process does as soon as the socket is bound, before anything else happens to it. */
let attack = () => {};
vi.mock('../libc.ts', async (original) => {
  const libc = await original<typeof import('../libc.ts')>();
  const bind: typeof libc.bind = (...call) => {
    const result = libc.bind(...call);
    attack();
    return result;
  };
  return { ...libc, bind };
});

const GROUP = 54321;

describe.runIf(process.geteuid?.() === 0)('a directory that another user can write to', () => {
  let directory: string;
  let path: string;
  let victim: string;

  beforeEach(() => {
    directory = mkdtempSync('/tmp/unix-listener-attack-');
    path = join(directory, 'socket');
    victim = join(directory, 'victim');
  });
  afterEach(() => {
    attack = () => {};
    rmSync(directory, { recursive: true });
  });

  const listen = () => UnixListener.listen(path, { mode: 0o666, group: GROUP });

  it.each([
    ['a symbolic link', () => symlinkSync(victim, path)],
    ['a hard link', () => linkSync(victim, path)],
    ['another file', () => renameSync(victim, path)],
  ])('gives mode and group to nothing else: %s', (_what, replace) => {
    writeFileSync(victim, '', { mode: 0o600 });
    const before = readdirSync('/proc/self/fd').length;
    const { ino } = statSync(victim);
    attack = () => {
      unlinkSync(path);
      replace();
    };
    expect(listen).toThrow(`bind ${path}: EEXIST: something else has taken its place`);
    for (const file of readdirSync(directory)) {
      const status = lstatSync(join(directory, file));
      if (status.ino === ino) expect([status.mode & 0o777, status.gid]).toEqual([0o600, process.getgid!()]);
    }
    expect(readdirSync('/proc/self/fd')).toHaveLength(before);
  });

  it('changes nothing of a socket of this user that has another name, too', () => {
    const precious = UnixListener.listen(victim);
    attack = () => {
      attack = () => {};
      unlinkSync(path);
      linkSync(victim, path);
    };
    expect(listen).toThrow('EEXIST');
    expect([statSync(victim).mode & 0o777, statSync(victim).gid]).toEqual([0o600, process.getgid!()]);
    precious.close();
  });

  it('reports at once that its socket file is gone or a directory', () => {
    attack = () => unlinkSync(path);
    expect(listen).toThrow(`open ${path}: ENOENT`);
    attack = () => {
      unlinkSync(path);
      mkdirSync(path);
    };
    expect(listen).toThrow('EEXIST');
    expect(statSync(path).isDirectory()).toBe(true);
  });
});
