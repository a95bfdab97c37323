import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';

/** The time of all files in what is built, so that two builds are the same: SOURCE_DATE_EPOCH, else that of the last commit. */
export function sourceDate(workspace: string): Date {
  const given = process.env.SOURCE_DATE_EPOCH;
  const seconds =
    given ?? execFileSync('git', ['log', '-1', '--format=%ct'], { cwd: workspace, encoding: 'utf8' });
  if (!/^\d+\s*$/.test(seconds)) throw new Error(`SOURCE_DATE_EPOCH=${given}: must be a number of seconds`);
  return new Date(Number(seconds) * 1000);
}

/** Writes a file and the folders that it is in. */
export function put(path: string, content: string | Uint8Array, mode = 0o644): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  chmodSync(path, mode);
}

/** Writes a compressed file without a time of its own. */
export function putCompressed(path: string, content: string): void {
  put(path, gzipSync(content, { level: 9 }));
}

export function link(path: string, target: string): void {
  mkdirSync(dirname(path), { recursive: true });
  symlinkSync(target, path);
}

/** Gives all files below a folder one time, and the permissions that do not depend on the umask of the build. */
export function normalize(folder: string, date: Date): void {
  for (const entry of [
    folder,
    ...readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)),
  ]) {
    const status = lstatSync(entry);
    if (status.isDirectory()) chmodSync(entry, 0o755);
    else if (!status.isSymbolicLink()) chmodSync(entry, status.mode & 0o100 ? 0o755 : 0o644);
    lutimesSync(entry, date, date);
  }
}

/** Packs `name` in `folder`, which has been normalized, into a compressed archive that depends on its content alone. */
export function tarball(file: string, folder: string, name: string): void {
  const options = ['--sort=name', '--owner=0', '--group=0', '--numeric-owner', '--format=ustar'];
  const archive = execFileSync('tar', ['-C', folder, ...options, '-cf', '-', name], { maxBuffer: 2 ** 28 });
  writeFileSync(file, gzipSync(archive, { level: 9 }));
}
