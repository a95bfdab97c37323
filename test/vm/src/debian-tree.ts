import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { runCommand } from './commands.ts';

/** The release that has QEMU 10.1 or later in its backports; `vfio-user-pci` came with that version. */
const RELEASE = 'trixie';
const BACKPORTS = `${RELEASE}-backports`;
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
/** Of every apt that is run here. */
const NETWORK = {
  'Acquire::Retries': '3',
  'Acquire::http::Timeout': '30',
  'Acquire::https::Timeout': '30',
  // Old lists, or some of them, are no lists.
  'APT::Update::Error-Mode': 'any',
  // The account that apt would change to may not be let into the cache.
  'APT::Sandbox::User': '',
};
/** Raised when what the tree holds changes. */
const VERSION = 1;

/** Files of Debian packages, unpacked but not installed: QEMU with all its libraries, a kernel, a static busybox. */
export interface DebianTree {
  readonly root: string;
  /** Absolute path of the kernel. */
  readonly kernel: string;
  /** Its release, for example `6.12.0-cloud-amd64`. */
  readonly release: string;
  readonly busybox: string;
}

/** Where downloads and what is made of them are kept. `IVSHMEM_VM_CACHE` overrides the place. */
export function cacheDirectory(): string {
  const { IVSHMEM_VM_CACHE, XDG_CACHE_HOME } = process.env;
  return resolve(IVSHMEM_VM_CACHE ?? join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'ivshmem-vm'));
}

/**
 * The tree, from the cache or else from the machine's own Debian mirror (`IVSHMEM_VM_MIRROR` names another one).
 * The packages are chosen, verified and downloaded by an apt with a configuration and a state of its own, so the
 * machine's packages stay as they are, and neither root nor a chroot is needed. An interrupted download goes on where
 * it ended. `log` hears about what takes time. Throws an Error of one line with the remedy.
 */
export function debianTree(log: (line: string) => void): DebianTree {
  if (process.arch !== 'x64') throw new Error(`virtual machines need an x86-64 host, not ${process.arch}`);
  const cache = cacheDirectory();
  const root = join(cache, `${RELEASE}-${VERSION}`);
  if (!existsSync(root)) fetchTree(cache, root, log);
  const kernel = readdirSync(join(root, 'boot')).find((name) => name.startsWith('vmlinuz-'));
  if (kernel === undefined) throw new Error(`${root}: holds no kernel; remove this folder and try again`);
  return {
    root,
    kernel: join(root, 'boot', kernel),
    release: kernel.slice('vmlinuz-'.length),
    busybox: join(root, 'usr/bin/busybox'),
  };
}

function fetchTree(cache: string, root: string, log: (line: string) => void): void {
  if (!existsSync(KEYRING)) {
    throw new Error(`${KEYRING}: not found: install it with "apt-get install debian-archive-keyring"`);
  }
  const mirror = process.env.IVSHMEM_VM_MIRROR ?? debianMirror(cache);
  const env = { ...process.env, LC_ALL: 'C', APT_CONFIG: aptConfiguration(cache, mirror) };
  log(`fetching QEMU and a kernel from ${mirror}, ${BACKPORTS}, into ${cache} (about 100 MB, once)`);
  const apt = (...argv: string[]) => fetch(mirror, argv, { env });
  apt('update');
  apt('-y', '--download-only', '-t', BACKPORTS, 'install', 'qemu-system-x86');
  const depends = runCommand('apt-cache', ['depends', `linux-image-cloud-amd64/${RELEASE}`], { env });
  const image = /Depends: (linux-image-\S+)/.exec(depends.toString())?.[1];
  if (image === undefined) throw new Error(`${mirror}: ${RELEASE} has no package linux-image-cloud-amd64`);
  const archives = join(cache, 'archives');
  fetch(mirror, ['download', 'busybox-static', image], { env, cwd: archives });

  // Several processes may do this at once: who is first has its tree take the name.
  const staging = `${root}.${process.pid}`;
  try {
    mkdirSync(staging);
    for (const name of readdirSync(archives)) {
      if (name.endsWith('.deb')) runCommand('dpkg-deb', ['-x', join(archives, name), staging]);
    }
    try {
      renameSync(staging, root);
    } catch (error) {
      if (!existsSync(root)) throw error;
    }
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
  rmSync(archives, { recursive: true, force: true });
  rmSync(join(cache, 'lists'), { recursive: true, force: true });
}

/** The mirror that apt takes Debian itself from here. */
function debianMirror(cache: string): string {
  const known = listedMirror();
  if (known !== null) return known;
  // A new machine may have sources, but never have asked what they hold: that is asked here, in lists of its own.
  const folder = join(cache, 'machine');
  mkdirSync(join(folder, 'lists/partial'), { recursive: true });
  const settings = { ...NETWORK, 'Dir::State::Lists': join(folder, 'lists'), 'Dir::Cache': folder };
  const argv = Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
  try {
    fetch('the package sources of this machine', [...argv, 'update']);
    const mirror = listedMirror(argv);
    if (mirror !== null) return mirror;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  throw new Error(
    'no Debian mirror among the package sources of this machine: name one with IVSHMEM_VM_MIRROR=http://…',
  );
}

/** The mirror in what apt knows of its sources; null where it knows of none. */
function listedMirror(argv: readonly string[] = []): string | null {
  const format = ['indextargets', '--format', '$(ORIGIN) $(LABEL) $(REPO_URI)', 'Created-By: Packages'];
  for (const line of runCommand('apt-get', [...argv, ...format])
    .toString()
    .split('\n')) {
    const [origin, label, uri] = line.split(' ');
    if (origin === 'Debian' && label === 'Debian' && uri !== undefined) return uri;
  }
  return null;
}

/** Runs an apt-get that uses the network. Throws an Error of one line that names where it wanted to fetch from. */
function fetch(from: string, argv: readonly string[], options: Parameters<typeof runCommand>[2] = {}): void {
  try {
    runCommand('apt-get', ['-qq', ...argv], options);
  } catch (error) {
    const remedy = 'check the network, or name another mirror with IVSHMEM_VM_MIRROR=http://…';
    throw new Error(`cannot fetch from ${from}: ${(error as Error).message}; ${remedy}`);
  }
}

/** An apt that knows nothing of this machine: no installed packages, so that every dependency is downloaded. */
function aptConfiguration(cache: string, mirror: string): string {
  for (const folder of ['lists/partial', 'archives/partial', 'apt']) {
    mkdirSync(join(cache, folder), { recursive: true });
  }
  const file = (name: string) => join(cache, 'apt', name);
  writeFileSync(file('status'), '');
  const source = (suite: string) => `deb [signed-by=${KEYRING}] ${mirror} ${suite} main\n`;
  writeFileSync(file('sources.list'), source(RELEASE) + source(BACKPORTS));
  const settings: Record<string, string> = {
    ...NETWORK,
    'Dir::State': join(cache, 'apt'),
    'Dir::State::Lists': join(cache, 'lists'),
    'Dir::State::status': file('status'),
    'Dir::Cache': join(cache, 'apt'),
    'Dir::Cache::archives': join(cache, 'archives'),
    'Dir::Etc::sourcelist': file('sources.list'),
    'Dir::Etc::sourceparts': '/dev/null',
    'Dir::Etc::preferences': '/dev/null',
    'Dir::Etc::preferencesparts': '/dev/null',
    'APT::Architecture': 'amd64',
    'APT::Architectures': 'amd64',
    'APT::Install-Recommends': 'false',
  };
  const lines = Object.entries(settings).map(([name, value]) => `${name} "${value}";\n`);
  writeFileSync(file('apt.conf'), lines.join(''));
  return file('apt.conf');
}
