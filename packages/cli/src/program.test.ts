import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const command = fileURLToPath(new URL('../dist/bin/ivshmem.js', import.meta.url));

function ivshmem(...argv: string[]): string {
  const { status, stdout } = spawnSync(process.execPath, [command, ...argv], { encoding: 'utf8' });
  expect(status).toBe(0);
  return stdout;
}

const help = ivshmem('--help');
const listed = [...help.split('Commands:')[1]!.matchAll(/^ {2}(\w+) (\[\w+(?:\.\.\.)?\]) {2,}/gm)];

describe('ivshmem --help', () => {
  it('is what `ivshmem help` prints, too', () => {
    expect(ivshmem('help')).toBe(help);
  });

  it.each(listed.map(([, name, takes]) => [name!, takes!]).filter(([name]) => name !== 'help'))(
    'lists %s %s as its own help has it',
    (name, takes) => {
      const own = ivshmem(name, '--help');
      expect(own).toMatch(new RegExp(`^usage: .*\\b${name}`, 'im'));
      if (name !== 'server') expect(own).toContain(`ivshmem ${name} ${takes}`);
      expect(ivshmem('help', name)).toBe(own);
    },
  );

  it('lists every command', () => {
    expect(listed.map(([, name]) => name)).toEqual([
      'server',
      'peers',
      'net',
      'device',
      'vm',
      'demo',
      'help',
    ]);
  });
});
