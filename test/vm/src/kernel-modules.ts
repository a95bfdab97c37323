import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { runCommand } from './commands.ts';
import type { DebianTree } from './debian-tree.ts';

/** A kernel module, ready for insmod. */
export interface KernelModule {
  readonly name: string;
  readonly data: Buffer;
}

/**
 * Modules of the tree's kernel with all that they depend on, dependencies first. The list of dependencies that depmod
 * makes at installation is not in the package: what a module depends on is read from the module itself. Throws an
 * Error where one does not exist.
 */
export function kernelModules(tree: DebianTree, names: readonly string[]): KernelModule[] {
  const folder = join(tree.root, 'usr/lib/modules', tree.release, 'kernel');
  const files = new Map<string, string>();
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.includes('.ko')) continue;
    files.set(moduleName(entry.name), join(entry.parentPath, entry.name));
  }
  const found = new Map<string, KernelModule>();
  const add = (name: string) => {
    if (found.has(name)) return;
    const file = files.get(name);
    if (file === undefined) throw new Error(`kernel ${tree.release} has no module ${name}`);
    const data = unpack(tree, file);
    for (const dependency of dependencies(data)) add(dependency);
    found.set(name, { name, data });
  };
  for (const name of names) add(moduleName(name));
  return [...found.values()];
}

/** File names may have dashes where the kernel has underscores. */
function moduleName(file: string): string {
  return basename(file)
    .replace(/\.ko.*$/, '')
    .replaceAll('-', '_');
}

function unpack(tree: DebianTree, file: string): Buffer {
  if (file.endsWith('.ko')) return readFileSync(file);
  return runCommand(tree.busybox, ['xzcat', file]);
}

/** The `depends=` entry of the section .modinfo, a list of strings that end with NUL. */
function dependencies(data: Buffer): string[] {
  const key = '\0depends=';
  const start = data.indexOf(key);
  if (start === -1) return [];
  const text = data.toString('latin1', start + key.length, data.indexOf(0, start + key.length));
  return text
    .split(',')
    .filter((name) => name !== '')
    .map(moduleName);
}
