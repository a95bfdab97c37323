import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { releaseProblems } from '@ivshmem/packaging/release-problems';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hasProgram } from '../support/shells.ts';

const workspace = fileURLToPath(new URL('../..', import.meta.url));
const { version } = JSON.parse(readFileSync(join(workspace, 'package.json'), 'utf8'));

interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Builds a release, as a user with other habits would. */
function build(output: string, umask: string, env: NodeJS.ProcessEnv): Promise<Result> {
  const script = `umask ${umask}; exec "$0" packaging/dist/release-check.js "$1"`;
  return new Promise((resolve) => {
    const options = { cwd: workspace, env: { ...process.env, ...env }, maxBuffer: 2 ** 24 };
    execFile('sh', ['-c', script, process.execPath, output], options, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

describe('npm run release:check', () => {
  let directory: string;
  let results: Result[];
  const output = (n: number) => join(directory, String(n));

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'ivshmem-releases-'));
    results = await Promise.all([
      build(output(0), '022', { TZ: 'UTC', LC_ALL: 'C' }),
      build(output(1), '077', { TZ: 'Asia/Tokyo', LC_ALL: 'C.UTF-8' }),
    ]);
  }, 300_000);
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  it('builds all files, and says what keeps them from being published', () => {
    const packages = readdirSync(join(workspace, 'packages')).map((name) => `ivshmem-${name}-${version}.tgz`);
    for (const [n, { code, stderr }] of results.entries()) {
      expect(readdirSync(output(n)).sort(), stderr).toEqual(
        [
          ...packages,
          `ivshmem-${version}-linux.tar.gz`,
          `ivshmem-${version}.spdx.json`,
          `ivshmem_${version}-1_amd64.deb`,
          `ivshmem_${version}-1_arm64.deb`,
          'SHA256SUMS',
        ].sort(),
      );
      const lines = stderr.split('\n').filter((line) => line.startsWith('release: '));
      expect(code).toBe(lines.length > 0 ? 1 : 0);
    }
  });

  it('builds the same bytes each time', () => {
    const sums = (n: number) => readFileSync(join(output(n), 'SHA256SUMS'), 'utf8');
    expect(sums(1)).toBe(sums(0));
    expect(sums(0).trim().split('\n').length).toBe(readdirSync(output(0)).length - 1);
  });

  it.skipIf(!hasProgram('lintian'))('has Debian packages that lintian accepts, but for the overrides', () => {
    for (const architecture of ['amd64', 'arm64']) {
      const file = join(output(0), `ivshmem_${version}-1_${architecture}.deb`);
      // It leaves files in its temporary directory.
      const env = { ...process.env, TMPDIR: directory };
      const { stdout } = spawnSync('lintian', ['--info', '--display-info', file], { encoding: 'utf8', env });
      expect(stdout).toBe('');
    }
  });

  it('lists what is in them', () => {
    const bill = JSON.parse(readFileSync(join(output(0), `ivshmem-${version}.spdx.json`), 'utf8'));
    const names = bill.packages.map(({ name }: { name: string }) => name);
    for (const name of ['@ivshmem/cli', 'koffi', 'pino', 'commander']) expect(names).toContain(name);
    expect(names).not.toContain('vitest');
  });
});

it('the versions of all packages are the same', () => {
  expect(releaseProblems(workspace).filter((line) => !line.startsWith('CHANGELOG.md'))).toEqual([]);
});
