import { spawnSync } from 'node:child_process';
import { existsSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import {
  cacheDirectory,
  debianMirror,
  KEYRING,
  RELEASE,
  unpackedPackages,
} from '@ivshmem/vm/debian-packages';

/** Raised when what is installed changes. */
const VERSION = 1;
const PACKAGES = ['iproute2', 'iputils-ping', 'nodejs', 'procps', 'systemd'];

/**
 * The folder of a Debian system, installed by mmdebstrap (as by debootstrap, but by apt), with its own Node.js, from the
 * cache or else from the mirror of this machine. Throws an Error of one line with the remedy.
 */
export function debianRoot(log: (line: string) => void): string {
  const root = join(cacheDirectory(), `root-${VERSION}`);
  if (existsSync(root)) return root;
  const tools = unpackedPackages(
    { name: 'mmdebstrap', version: 1, title: 'mmdebstrap (1 MB)', packages: [], alone: () => ['mmdebstrap'] },
    log,
  );
  const mirror = debianMirror();
  log(`installing Debian ${RELEASE} from ${mirror} into ${root} (about 100 MB to fetch, once)`);
  const staging = `${root}.${process.pid}`;
  try {
    const options = [
      ...['--variant=minbase', '--mode=root', '--quiet', `--keyring=${KEYRING}`, `--include=${PACKAGES}`],
      ...['--dpkgopt=path-exclude=/usr/share/locale/*', '--dpkgopt=path-exclude=/usr/share/doc/*'],
      // Of the package that is tested.
      '--dpkgopt=path-include=/usr/share/doc/ivshmem/*',
    ];
    const program = join(tools, 'usr/bin/mmdebstrap');
    const { status, stderr } = spawnSync('perl', [program, ...options, RELEASE, staging, mirror], {
      encoding: 'utf8',
    });
    if (status !== 0)
      throw new Error(`mmdebstrap: ${stderr.trim().split('\n').at(-1) || `exit status ${status}`}`);
    renameSync(staging, root);
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
  return root;
}
