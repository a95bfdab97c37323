import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { createNamedNetns, deleteNamedNetns, missingNetworkPrivilege, Netns } from '@ivshmem/linux/network';
import { ping } from '@ivshmem/traffic';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const command = join(root, 'packages/cli/bin/ivshmem.js');

/** The code blocks of a language, in order. */
function blocks(language: string): string[] {
  return [...readme.matchAll(/^```(\w*)\n(.*?)^```$/gms)]
    .filter(([, l]) => l === language)
    .map(([, , code]) => code!);
}

const missing = missingNetworkPrivilege();
const skip = missing !== null && process.env.CI === undefined;

describe('README', () => {
  it('names files that exist', () => {
    const links = [...readme.matchAll(/\]\((?!https?:)([^)#]+)/g)].map(([, path]) => path!);
    expect(links.length).toBeGreaterThan(5);
    expect(links.filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });

  it('has a page that lists the options that `ivshmem net --help` lists', () => {
    const help = spawnSync(process.execPath, [command, 'net', '--help'], { encoding: 'utf8' }).stdout;
    const options = (text: string) => new Set(text.match(/--[a-z][a-z-]+/g));
    const listed = options(help.split('Examples:')[0]!);
    listed.delete('--help');
    const page = readFileSync(join(root, 'docs/commands.md'), 'utf8');
    const section = page.split('\n## `ivshmem net`')[1]!.split('\n## ')[0]!;
    expect([...listed].filter((option) => !options(section).has(option))).toEqual([]);
  });

  it('names scripts that exist', () => {
    const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    const named = [...readme.matchAll(/npm (?:run )?(start|test|bench)\b/g)].map(([, name]) => name!);
    expect(named.filter((name) => !Object.hasOwn(scripts, name))).toEqual([]);
  });
});

describe.skipIf(skip)(`README, by hand${skip ? ` (skipped: ${missing})` : ''}`, () => {
  const directory = mkdtempSync(join(tmpdir(), 'ivshmem-readme-'));
  const socket = join(directory, 'link.sock');
  const suffix = process.pid;
  const running: ReturnType<typeof spawn>[] = [];
  const names: string[] = [];
  const adapt = (code: string) =>
    code.replaceAll('/tmp/link.sock', socket).replace(/\b(blue|green)\b/g, `$1${suffix}`);

  /** Starts a command of the README; resolves with the first line for which `ready` holds. */
  function start(line: string, ready: (line: string) => boolean): Promise<void> {
    const [file, ...words] = adapt(line).trim().split(/\s+/);
    const child = spawn(file!, words, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    running.push(child);
    return new Promise((resolve, reject) => {
      createInterface(child.stdout!).on('line', (text) => ready(text) && resolve());
      let errors = '';
      child.stderr!.on('data', (text) => {
        errors += text;
      });
      child.on('exit', (code) => reject(new Error(`"${line.trim()}" ended with ${code}: ${errors}`)));
    });
  }

  beforeAll(() => {
    for (const block of blocks('sh')) {
      for (const [, name] of adapt(block).matchAll(/^ip netns add (\S+)$/gm)) {
        createNamedNetns(name!).close();
        names.push(name!);
      }
    }
  });

  afterAll(async () => {
    await Promise.all(
      running.reverse().map((child) => {
        const exited = new Promise((resolve) => child.once('exit', resolve));
        child.kill('SIGINT');
        return child.exitCode === null ? exited : undefined;
      }),
    );
    for (const name of names) deleteNamedNetns(name);
    rmSync(directory, { recursive: true });
  });

  it('makes a link that passes pings', async () => {
    const lines = blocks('sh').flatMap((block) =>
      block.split('\n').filter((line) => line.startsWith('node_modules/.bin/ivshmem ')),
    );
    expect(lines.length).toBe(3);
    await start(lines[0]!, (line) => line.includes('listening'));
    await Promise.all(lines.slice(1).map((line) => start(line, (text) => text.includes('link is up'))));
    using blue = Netns.open(names[0]!);
    const { received } = await ping({ netns: blue.path, to: '10.0.0.2', count: 5 });
    expect(received).toBe(5);
  });

  it('starts commands that a signal ends, with nothing between them and their processes', async () => {
    expect(running.length).toBe(3);
    for (const child of running.splice(0).reverse()) {
      expect(readFileSync(`/proc/${child.pid}/comm`, 'utf8')).toMatch(/^(node|MainThread)\n$/);
      child.kill('SIGTERM');
      expect(await once(child, 'exit')).toEqual([0, null]);
    }
  });

  it('shows a program that runs', () => {
    const cache = join(root, 'node_modules/.cache');
    mkdirSync(cache, { recursive: true });
    const file = join(cache, `readme-${suffix}.mjs`);
    const program = blocks('ts')[0]!.replaceAll('/tmp/link.sock', join(directory, 'library.sock'));
    writeFileSync(file, program.replaceAll(/'ivn([01])'/g, `'ivr$1${suffix}'`));
    try {
      const run = spawnSync(process.execPath, [file], { encoding: 'utf8', timeout: 60_000 });
      expect(run.stderr).toBe('');
      expect(run.stdout).toMatch(/^ivr0\d+ is up, MTU 16384: \{/);
      expect(run.status).toBe(0);
    } finally {
      rmSync(file);
    }
  });
});
