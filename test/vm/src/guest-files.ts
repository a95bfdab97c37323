import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runCommand } from './commands.ts';

/** The workspace, of which node_modules and packages are needed. The same from src and from dist. */
const WORKSPACE = fileURLToPath(new URL('../../..', import.meta.url));

/** A file on this machine, and where it goes in the guest, without a leading slash. */
export interface GuestFile {
  readonly from: string;
  readonly to: string;
  readonly executable: boolean;
}

/** Where the workspace's packages are in a guest. */
export const GUEST_WORKSPACE = '/opt/ivshmem';

/** The Node that runs this program, with the shared libraries that it loads. */
export function nodeFiles(): GuestFile[] {
  const libraries = runCommand('ldd', [process.execPath])
    .toString()
    .split('\n')
    .map((line) => /(\/\S+) \(0x/.exec(line)?.[1])
    .filter((path) => path !== undefined);
  return [
    { from: process.execPath, to: 'usr/bin/node', executable: true },
    ...libraries.map((path) => ({ from: path, to: path.slice(1), executable: true })),
  ];
}

/** A built package of the workspace with all that it depends on, as far as it matters when it runs. */
export function packageFiles(name: string): GuestFile[] {
  const found = new Map<string, GuestFile[]>();
  const add = (location: string) => {
    if (found.has(location)) return;
    const folder = realpathSync(location);
    const files = runtimeFiles(folder).map((path) => ({
      from: join(folder, path),
      to: join(GUEST_WORKSPACE.slice(1), relative(WORKSPACE, location), path),
      executable: false,
    }));
    found.set(location, files);
    const { dependencies = {}, optionalDependencies = {} } = JSON.parse(
      readFileSync(join(folder, 'package.json'), 'utf8'),
    );
    for (const dependency of Object.keys({ ...dependencies, ...optionalDependencies })) {
      const at = locate(dependency, folder);
      if (at !== null) add(at);
      else if (dependency in dependencies) throw new Error(`${dependency}: not installed: run "npm ci"`);
    }
  };
  const start = locate(name, WORKSPACE);
  if (start === null) throw new Error(`${name}: not installed: run "npm ci"`);
  add(start);
  return [...found.values()].flat();
}

/** Where Node finds a package that is asked for in `folder`. */
function locate(name: string, folder: string): string | null {
  for (let from = folder; from.startsWith(WORKSPACE) || `${from}/` === WORKSPACE; from = dirname(from)) {
    const candidate = join(from, 'node_modules', name);
    if (existsSync(candidate)) return candidate;
  }
  return null;
}

function runtimeFiles(folder: string): string[] {
  const files: string[] = [];
  const visit = (path: string) => {
    for (const entry of readdirSync(join(folder, path), { withFileTypes: true })) {
      const inner = join(path, entry.name);
      if (entry.isDirectory() && entry.name !== 'node_modules') visit(inner);
      else if (entry.isFile() && /\.(js|cjs|mjs|json|node)$/.test(entry.name)) files.push(inner);
    }
  };
  visit('.');
  const isOurs = !folder.includes('/node_modules/');
  if (isOurs && !existsSync(join(folder, 'dist'))) {
    throw new Error(`${folder}: not built: run "npm run build"`);
  }
  return files;
}
