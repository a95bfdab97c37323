import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const command = fileURLToPath(new URL('../dist/bin/ivshmem.js', import.meta.url));

function ivshmem(...argv: string[]): string {
  const { status, stdout } = spawnSync(process.execPath, [command, ...argv], { encoding: 'utf8' });
  expect(status).toBe(0);
  return stdout;
}

const help = ivshmem('--help');
const listed = [
  ...help.split('Commands:')[1]!.matchAll(/^ {2}(\w+) (\[\w+(?:\.\.\.)?\](?: \[\w+(?:\.\.\.)?\])?) {2,}/gm),
];

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
      'status',
      'top',
      'capture',
      'net',
      'device',
      'vm',
      'doctor',
      'demo',
      'help',
    ]);
  });
});

describe('an error of a command', () => {
  /** Exit code and standard error of a command whose output goes to a device that is full. */
  function toFull(...argv: string[]): [number | null, string] {
    const full = openSync('/dev/full', 'w');
    const { status, stderr } = spawnSync(process.execPath, [command, ...argv], {
      stdio: ['ignore', full, 'pipe'],
      encoding: 'utf8',
    });
    closeSync(full);
    return [status, stderr];
  }

  it('is reported if its output cannot be written', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'ivshmem-full-'));
    const socketPath = join(directory, 'server');
    const server = spawn(process.execPath, [command, 'server', '-F', '-S', socketPath], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      await once(server.stdout, 'data');
      for (const argv of [['--help'], ['peers', '-S', socketPath]]) {
        expect(toFull(...argv)).toEqual([
          1,
          expect.stringMatching(/^ivshmem: write error: ENOSPC: [^\n]*\n$/),
        ]);
      }
    } finally {
      server.kill('SIGTERM');
      await once(server, 'exit');
      rmSync(directory, { recursive: true });
    }
  });

  it('names the path of the VM, with the remedy', () => {
    const path = '/nonexistent/vm.sock';
    const { status, stderr } = spawnSync(process.execPath, [command, 'vm', '--vfio-user', path], {
      encoding: 'utf8',
    });
    expect([status, stderr]).toEqual([
      1,
      `ivshmem: bind ${path}: ENOENT: no such file or directory: create the directory first\n`,
    ]);
  });
});

describe('what a command loads', () => {
  const main = new URL('../dist/program.js', import.meta.url).href;

  /** The packages outside of this tree that a command line loads as CommonJS, which is what all of ours are. */
  function loaded(...argv: string[]): string[] {
    const script = `
      const { main } = await import(${JSON.stringify(main)});
      process.stdout.write = () => true;
      await main(${JSON.stringify(argv)});
      const { createRequire } = await import('node:module');
      console.error(Object.keys(createRequire('/').cache).join('\\n'));`;
    const run = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
    const names = [...run.stderr.matchAll(/node_modules\/((?:@[\w-]+\/)?[\w-]+)/g)].map(([, name]) => name!);
    return [...new Set(names)].sort();
  }

  it.each([
    ['--version'],
    ['--help'],
    ['net', '--help'],
    ['device', '--help'],
    ['vm', '--help'],
    ['peers', '--help'],
    ['doctor', '--help'],
    ['demo', '--help'],
  ])('is commander alone for its help: %s %s', (...argv) => {
    expect(loaded(...argv.filter(Boolean))).toEqual(['commander']);
  });

  it('is neither the log nor the metrics of the host server for a link or a device', () => {
    // At a path where nothing can be created, so that they end at once.
    for (const command of ['net', 'device']) {
      const packages = loaded(
        command,
        '-S',
        '/nonexistent/server',
        ...(command === 'net' ? [] : ['--vfio-user', '/nonexistent/vm']),
      );
      expect(packages).toContain('rxjs');
      expect(packages).not.toContain('pino');
      expect(packages).not.toContain('prom-client');
    }
  });
});
