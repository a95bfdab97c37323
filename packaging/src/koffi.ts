import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { put } from './tree.ts';

/** As Node.js names them: what binaries are made for. */
export type Architecture = 'x64' | 'arm64';
export type Libc = 'linux' | 'musl';

/** The folder of koffi's binaries for an architecture, from the npm registry unless they have been fetched before. */
export function koffiPackage(workspace: string, architecture: Architecture): string {
  const name = `@koromix/koffi-linux-${architecture}`;
  const { version, integrity } = lockedPackage(workspace, name);
  const cache = join(workspace, 'node_modules/.cache/ivshmem-koffi');
  const folder = join(cache, `${architecture}-${version}`);
  if (existsSync(folder)) return join(folder, 'package');
  mkdirSync(cache, { recursive: true });
  const staging = mkdtempSync(join(cache, 'fetch-'));
  try {
    const options = ['--pack-destination', staging, '--silent', '--prefer-offline'];
    const file = join(
      staging,
      execFileSync('npm', ['pack', `${name}@${version}`, ...options], { encoding: 'utf8' }).trim(),
    );
    const [algorithm, digest] = integrity.split(/-(.*)/s);
    const found = createHash(algorithm!).update(readFileSync(file)).digest('base64');
    if (found !== digest) throw new Error(`${name}@${version}: not the package that package-lock.json names`);
    execFileSync('tar', ['-xzf', file, '-C', staging]);
    rmSync(file);
    try {
      renameSync(staging, folder);
    } catch (error) {
      // Another process was faster.
      if (!existsSync(folder)) throw error;
    }
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
  return join(folder, 'package');
}

/** Copies the binary for a C library as the bundle expects it. */
export function copyKoffi(workspace: string, architecture: Architecture, libc: Libc, folder: string): void {
  const from = join(koffiPackage(workspace, architecture), `${libc}_${architecture}`, 'koffi.node');
  put(join(folder, `${libc}_${architecture}.node`), readFileSync(from));
}

function lockedPackage(workspace: string, name: string): { version: string; integrity: string } {
  const lock = JSON.parse(readFileSync(join(workspace, 'package-lock.json'), 'utf8'));
  return lock.packages[`node_modules/${name}`];
}
