import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type CpioEntry, cpio } from './cpio.ts';
import { cacheDirectory } from './debian-packages.ts';
import type { DebianTree } from './debian-tree.ts';
import { type GuestFile, nodeFiles, packageFiles } from './guest-files.ts';
import { kernelModules } from './kernel-modules.ts';

/** What a link, its interrupts, the network card that it is compared with, and a disk need. */
const MODULES = ['tun', 'vfio_iommu_type1', 'vfio-pci', 'virtio_net', 'virtio_blk'];
const INIT = fileURLToPath(new URL('../guest/init.sh', import.meta.url));
const FOLDER = 0o040755;
const PROGRAM = 0o100755;
const FILE = 0o100644;
/** Images that are kept: other checkouts may be using theirs. */
const KEPT = 4;

/**
 * The first root file system of a guest, and the only one: busybox, Node, our packages as they are built now, and
 * kernel modules. Returns the path of the archive, which is made unless the cache holds the same already. Throws an
 * Error of one line.
 */
export function guestImage(tree: DebianTree, log: (line: string) => void): string {
  const files: GuestFile[] = [
    { from: INIT, to: 'init', executable: true },
    { from: tree.busybox, to: 'bin/busybox', executable: true },
    ...nodeFiles(),
    ...packageFiles('@ivshmem/vm'),
  ];
  const folder = join(cacheDirectory(), 'images');
  const image = join(folder, `${fingerprint(tree, files)}.cpio`);
  if (existsSync(image)) return image;
  log('packing the guests’ file system');
  mkdirSync(folder, { recursive: true });
  const staging = `${image}.${process.pid}`;
  const fd = openSync(staging, 'w');
  try {
    for (const chunk of cpio(entries(tree, files))) if (chunk.length > 0) writeSync(fd, chunk);
    renameSync(staging, image);
  } finally {
    closeSync(fd);
    rmSync(staging, { force: true });
  }
  removeOld(folder);
  return image;
}

function fingerprint(tree: DebianTree, files: readonly GuestFile[]): string {
  const hash = createHash('sha256').update(`${tree.release} ${MODULES}\n`);
  for (const { from, to } of files) {
    const { size, mtimeMs } = statSync(from);
    hash.update(`${from} ${to} ${size} ${mtimeMs}\n`);
  }
  return hash.digest('hex').slice(0, 16);
}

function* entries(tree: DebianTree, files: readonly GuestFile[]): Generator<CpioEntry> {
  const folders = new Set(['.']);
  function* file(path: string, mode: number, data: Uint8Array): Generator<CpioEntry> {
    const missing: string[] = [];
    for (let parent = dirname(path); !folders.has(parent); parent = dirname(parent)) missing.unshift(parent);
    for (const parent of missing) {
      folders.add(parent);
      yield { path: parent, mode: FOLDER };
    }
    yield { path, mode, data };
  }
  for (const { from, to, executable } of files) {
    yield* file(to, executable ? PROGRAM : FILE, readFileSync(from));
  }
  const modules = kernelModules(tree, MODULES);
  for (const { name, data } of modules) yield* file(`modules/${name}.ko`, FILE, data);
  yield* file('modules/order', FILE, Buffer.from(modules.map(({ name }) => `${name}\n`).join('')));
}

function removeOld(folder: string): void {
  const images = readdirSync(folder)
    .map((name) => join(folder, name))
    .map((path) => ({ path, time: statSync(path).mtimeMs }))
    .sort((a, b) => b.time - a.time);
  for (const { path } of images.slice(KEPT)) rmSync(path, { force: true });
}
