import { execFile } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { missingNetworkPrivilege } from '@ivshmem/linux/network';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const CONSUMER = join(ROOT, 'test/consumer');
const packages = readdirSync(join(ROOT, 'packages'));
/** Those whose example makes namespaces or interfaces. */
const PRIVILEGED = ['net', 'traffic'];

const call = promisify(execFile);
/** Without what `npm test` sets for its scripts. */
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('npm_')));

let directory: string;

/** A checkout that was never built, with what `npm ci` installs. */
function freshCheckout(): string {
  const checkout = join(directory, 'checkout');
  for (const name of ['.npmrc', 'tsconfig.base.json']) cpSync(join(ROOT, name), join(checkout, name));
  writeFileSync(
    join(checkout, 'package.json'),
    JSON.stringify({ private: true, workspaces: ['packages/*'] }),
  );
  const filter = (path: string) => !/\/(dist|node_modules)$/.test(path);
  cpSync(join(ROOT, 'packages'), join(checkout, 'packages'), { recursive: true, filter });
  const modules = join(checkout, 'node_modules');
  mkdirSync(join(modules, '@ivshmem'), { recursive: true });
  for (const name of readdirSync(join(ROOT, 'node_modules'))) {
    if (name !== '@ivshmem') symlinkSync(join(ROOT, 'node_modules', name), join(modules, name));
  }
  for (const name of packages) symlinkSync(join(checkout, 'packages', name), join(modules, '@ivshmem', name));
  return checkout;
}

/** Where npm has installed a package, with its name and its files by their paths inside. */
const installed = (name: string) => join(directory, 'consumer/node_modules/@ivshmem', name);
const files = (name: string) =>
  readdirSync(installed(name), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(installed(name).length + 1));

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'ivshmem-packages-'));
  const tarballs = join(directory, 'tarballs');
  mkdirSync(tarballs);
  const pack = ['pack', '--workspaces', '--pack-destination', tarballs];
  await call('npm', pack, { cwd: freshCheckout(), env });
  const consumer = join(directory, 'consumer');
  mkdirSync(consumer);
  const dependencies = Object.fromEntries(
    packages.map((name) => [`@ivshmem/${name}`, `file:${tarballs}/ivshmem-${name}-0.1.0.tgz`]),
  );
  writeFileSync(join(consumer, 'package.json'), JSON.stringify({ type: 'module', dependencies }));
  await call('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund'], { cwd: consumer, env });
}, 240_000);

afterAll(() => {
  rmSync(directory, { recursive: true });
});

describe.each(packages)('@ivshmem/%s, packed in a checkout that was not built, and installed', (name) => {
  it('has programs, types, sources, README and LICENSE, and nothing else', () => {
    const found = files(name);
    for (const file of ['README.md', 'LICENSE', 'package.json']) expect(found).toContain(file);
    const path =
      /^(README\.md|LICENSE|package\.json|bin\/[\w-]+\.js|src\/.+\.ts|dist\/.+\.(js|d\.ts)(\.map)?)$/;
    expect(found.filter((file) => !path.test(file))).toEqual([]);
    expect(found.filter((file) => /test/.test(file))).toEqual([]);
    const sources = found.filter((file) => file.startsWith('src/')).map((file) => file.slice(4, -3));
    const programs = found.filter((file) => /^dist\/.*\.js$/.test(file)).map((file) => file.slice(5, -3));
    expect(programs.sort()).toEqual(sources.sort());
  });

  it('has source maps that find their sources', () => {
    const maps = files(name).filter((file) => file.endsWith('.map'));
    expect(maps.length).toBeGreaterThan(0);
    for (const file of maps) {
      const { sources } = JSON.parse(readFileSync(join(installed(name), file), 'utf8'));
      for (const source of sources) {
        expect(existsSync(normalize(join(installed(name), dirname(file), source)))).toBe(true);
      }
    }
  });

  it('says what it is, and under which licence', () => {
    const { description, keywords, license } = JSON.parse(
      readFileSync(join(installed(name), 'package.json'), 'utf8'),
    );
    expect([description.length > 10, keywords.length > 3, license]).toEqual([true, true, 'MIT']);
    expect(readFileSync(join(installed(name), 'LICENSE'), 'utf8')).toBe(
      readFileSync(join(ROOT, 'LICENSE'), 'utf8'),
    );
  });

  const missing = PRIVILEGED.includes(name) ? missingNetworkPrivilege() : null;
  it.skipIf(missing !== null && process.env.CI === undefined)('shows an example that runs', async () => {
    const readme = readFileSync(join(installed(name), 'README.md'), 'utf8');
    const example = /^```js\n(.*?)^```$/ms.exec(readme)?.[1];
    if (name === 'cli') return expect(example).toBeUndefined();
    const file = join(directory, 'consumer', `${name}.js`);
    const unique = example!.replaceAll('/tmp/', `${directory}/`).replaceAll("'ivn", `'iv${process.pid}n`);
    writeFileSync(file, unique);
    const { stdout, stderr } = await call(process.execPath, [file], { timeout: 60_000 });
    expect(stderr).toBe('');
    const printed: Record<string, RegExp> = {
      linux: /^42\ntrue\n$/,
      transport: /^frame\n$/,
      'host-server': /^listening at \S+: [^\n]*\npeers: 0\n/,
      device: /^qemu-system-x86_64 … -device /,
      net: /^iv\d+n0 is up\n$/,
      traffic: /^5 of 5 answered\n$/,
      monitor: /^demo-\d+: hello, Ada\n$/,
      conformance: /^(passed server\.departure\.[\w-]+\n)+9 checks\n$/,
    };
    expect(stdout).toMatch(printed[name]!);
  });
});

it('all of them compile in a strict program with TypeScript 5.5, and run', async () => {
  const consumer = join(directory, 'consumer');
  for (const name of ['consumer.ts', 'tsconfig.json']) cpSync(join(CONSUMER, name), join(consumer, name));
  const typescript = createRequire(join(CONSUMER, 'package.json')).resolve('typescript');
  const compiler = join(dirname(typescript), 'tsc.js');
  const { version } = JSON.parse(readFileSync(join(dirname(typescript), '../package.json'), 'utf8'));
  expect(version).toMatch(/^5\.5\./);
  const { stdout: complaints } = await call(process.execPath, [compiler, '-p', consumer]).catch(
    (error) => error,
  );
  expect(complaints).toBe('');
  const { stdout } = await call(process.execPath, [
    join(consumer, 'dist/consumer.js'),
    join(directory, 'socket'),
  ]);
  expect(JSON.parse(stdout)).toMatchObject({ refusal: 'EBADF', received: 60, median: 2, model: 'function' });
});

it('npm has nothing to correct in their package.json, and publishes them for everyone', async () => {
  // "npm publish" corrects by itself what "npm pkg fix" does: it left out commands that began with "./".
  const checkout = join(directory, 'checkout');
  const texts = () =>
    packages.map((name) => readFileSync(join(checkout, 'packages', name, 'package.json'), 'utf8'));
  const before = texts();
  await call('npm', ['pkg', 'fix', '--workspaces'], { cwd: checkout, env });
  expect(texts()).toEqual(before);
  expect(before.map((text) => JSON.parse(text).publishConfig)).toEqual(
    before.map(() => ({ access: 'public' })),
  );
});

it('nothing else in the workspace can be published', () => {
  const { workspaces } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  for (const path of ['.', ...workspaces.filter((path: string) => !path.startsWith('packages/'))]) {
    const manifest = JSON.parse(readFileSync(join(ROOT, path, 'package.json'), 'utf8'));
    expect([path, manifest.private]).toEqual([path, true]);
  }
});

it('its commands run', async () => {
  for (const command of ['ivshmem', 'ivshmem2-server']) {
    const path = join(directory, 'consumer/node_modules/.bin', command);
    const { stdout } = await call(path, [command === 'ivshmem' ? '--help' : '-h']);
    expect(stdout).toContain(command);
  }
});
