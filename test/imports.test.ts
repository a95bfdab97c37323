import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

// Import directions. A name is a module's (`rxjs`, `node:fs`), or a path from the root of the tree. It matches an entry
// of a list that is the same, or a prefix of it up to a slash; an entry that ends in a slash or a colon is a prefix.

/** The packages of each package's imports: see docs/architecture.md. */
const packages: Record<string, readonly string[]> = {
  linux: [],
  transport: ['linux'],
  traffic: ['linux'],
  monitor: ['linux'],
  net: ['linux', 'transport'],
  device: ['linux', 'transport'],
  'host-server': ['linux', 'transport', 'monitor'],
  // An independent view of the protocols: a fault in transport must not hide itself.
  conformance: ['linux'],
  cli: ['linux', 'transport', 'traffic', 'net', 'device', 'host-server', 'monitor', 'conformance'],
};

/** What the files in a folder do not import, not even types. Tests are exempt. */
interface Wall {
  readonly below: string;
  readonly not: readonly string[];
  readonly but: readonly string[];
}

const walls: readonly Wall[] = [
  ...Object.entries(packages).map(([name, imports]) => ({
    below: `packages/${name}/`,
    not: ['@ivshmem/', 'packages/', ...(name === 'linux' ? [] : ['koffi'])],
    but: [`packages/${name}/`, ...imports.map((other) => `@ivshmem/${other}`)],
  })),
  // In a thread without an event loop, rxjs loses what a subscriber throws.
  ...['linux', 'transport', 'traffic', 'monitor', 'conformance'].map((name) => ({
    below: `packages/${name}/`,
    not: ['rxjs'],
    but: [],
  })),
  // The protocol runs on any operating system.
  {
    below: 'packages/transport/src/protocol/',
    not: ['@ivshmem/', 'rxjs', 'koffi', 'node:', 'packages/'],
    but: ['packages/transport/src/protocol/'],
  },
  // vfio-user can serve any PCI device; the ivshmem device does not know how it is offered.
  {
    below: 'packages/device/src/vfio-user/',
    not: ['@ivshmem/', 'packages/'],
    but: ['@ivshmem/linux', 'packages/device/src/vfio-user/'],
  },
  { below: 'packages/device/src/ivshmem/', not: ['packages/device/src/vfio-user/'], but: [] },
  {
    below: 'packages/host-server/src/server/',
    not: ['pino', 'prom-client', 'packages/host-server/src/service/'],
    but: [],
  },
  // What the commands share does not depend on any of them.
  ...['options', 'output', 'top', 'demo', 'doctor', 'capture'].map((name) => ({
    below: `packages/cli/src/${name}/`,
    not: ['packages/cli/src/commands/'],
    but: [],
  })),
];

/** What a program loads from an entry point on, statically or later. Types are not loaded. */
interface Closure {
  readonly entry: string;
  readonly not: readonly string[];
  readonly but: readonly string[];
}

const closures: readonly Closure[] = [
  {
    entry: '@ivshmem/transport/protocol',
    not: ['@ivshmem/', 'packages/', 'rxjs', 'koffi', 'node:'],
    but: ['packages/transport/src/protocol/'],
  },
  { entry: '@ivshmem/host-server', not: ['pino', 'prom-client'], but: [] },
  { entry: '@ivshmem/monitor', not: ['prom-client', 'rxjs', 'node:http'], but: [] },
  { entry: 'packages/net/src/link-worker.ts', not: ['rxjs'], but: [] },
  { entry: 'packages/device/src/device-worker.ts', not: ['rxjs'], but: [] },
];

interface Import {
  /** A module's name, or a path from the root of the tree. */
  readonly name: string;
  readonly typeOnly: boolean;
}

const STATIC = /^\s*(?:import|export)\s+(type\s+)?(?:[\w$*{},\s]+?\sfrom\s+)?['"]([^'"]+)['"]/gm;
const DYNAMIC = /\bimport\(\s*['"]([^'"]+)['"]/g;

function importsIn(text: string): Import[] {
  return [
    ...[...text.matchAll(STATIC)].map(([, type, name]) => ({ name: name!, typeOnly: type !== undefined })),
    ...[...text.matchAll(DYNAMIC)].map(([, name]) => ({ name: name!, typeOnly: false })),
  ];
}

function importsOf(file: string): Import[] {
  return importsIn(readFileSync(join(root, file), 'utf8')).map(({ name, typeOnly }) => ({
    name: name.startsWith('.') ? join(dirname(file), name) : name,
    typeOnly,
  }));
}

/** The source file of a name; null for a module that is not of this tree. Throws if there is no such file. */
function fileOf(name: string): string | null {
  const [, folder, subpath] = /^@ivshmem\/([^/]+)(\/.*)?$/.exec(name) ?? [];
  if (folder === undefined && !name.startsWith('packages/')) return null;
  let file = name;
  if (folder !== undefined) {
    const { exports } = JSON.parse(readFileSync(join(root, 'packages', folder, 'package.json'), 'utf8'));
    const built: string = exports[`.${subpath ?? ''}`].default;
    file = join('packages', folder, built.replace('/dist/', '/src/').replace(/\.js$/, '.ts'));
  }
  if (!existsSync(join(root, file))) throw new Error(`${name}: there is no ${file}`);
  return file;
}

function matches(name: string, list: readonly string[]): boolean {
  return list.some((entry) => name === entry || name.startsWith(/[/:]$/.test(entry) ? entry : `${entry}/`));
}

function isForbidden(
  name: string,
  { not, but }: { not: readonly string[]; but: readonly string[] },
): boolean {
  return matches(name, not) && !matches(name, but);
}

function sourcesBelow(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /(?<!\.test|\.test-support|\.d)\.ts$/.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .filter((file) => !/(^|\/)(dist|node_modules)\//.test(file));
}

/** Each forbidden name that is reached, by way of which files. */
function reached(closure: Closure): string[] {
  const found: string[] = [];
  const seen = new Set<string>();
  const visit = (name: string, way: readonly string[]): void => {
    if (seen.has(name)) return;
    seen.add(name);
    const file = fileOf(name);
    if (isForbidden(file ?? name, closure)) found.push([...way, name].join(' > '));
    if (file === null) return;
    for (const next of importsOf(file)) if (!next.typeOnly) visit(next.name, [...way, file]);
  };
  visit(closure.entry, []);
  return found;
}

describe('imports', () => {
  it('are found in every form', () => {
    const text = [
      "import a from 'a';",
      "import type { B } from 'b';",
      'import {',
      '  c,',
      '  type C,',
      "} from './c.ts';",
      "import * as d from 'd/d';",
      "import 'e';",
      "export * from 'f';",
      "export type { G } from 'g';",
      "export const no = 'no';",
      "const h = await import('h');",
      "  import('i'),",
    ].join('\n');
    const all = importsIn(text);
    expect(all.map(({ name }) => name)).toEqual(['a', 'b', './c.ts', 'd/d', 'e', 'f', 'g', 'h', 'i']);
    expect(all.filter(({ typeOnly }) => typeOnly).map(({ name }) => name)).toEqual(['b', 'g']);
  });

  it.each(walls)('of $below: not $not', (wall) => {
    const files = sourcesBelow(wall.below);
    expect(files).not.toEqual([]);
    const broken = files.flatMap((file) =>
      importsOf(file)
        .filter(({ name }) => isForbidden(name, wall))
        .map(({ name }) => `${file}: ${name}`),
    );
    expect(broken).toEqual([]);
  });

  it.each(closures)('from $entry on: not $not', (closure) => {
    expect(reached(closure)).toEqual([]);
  });
});
