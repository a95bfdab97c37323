import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { runCommand } from './commands.ts';

/** The release that trees are made of. */
export const RELEASE = 'trixie';
export const BACKPORTS = `${RELEASE}-backports`;
export const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
/** Of every apt that is run here. */
const NETWORK = {
  'Acquire::Retries': '3',
  'Acquire::http::Timeout': '30',
  'Acquire::https::Timeout': '30',
  // Fail if any list is outdated or missing.
  'APT::Update::Error-Mode': 'any',
  // The user that apt would switch to may not have access to the cache.
  'APT::Sandbox::User': '',
};

/** Where downloads and what is made of them are kept. `IVSHMEM_VM_CACHE` overrides the place. */
export function cacheDirectory(): string {
  const { IVSHMEM_VM_CACHE, XDG_CACHE_HOME } = process.env;
  return resolve(IVSHMEM_VM_CACHE ?? join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'ivshmem-vm'));
}

/** Packages to download and unpack. */
export interface PackageSet {
  /** Names the tree in the cache. */
  readonly name: string;
  /** Raised when what the tree holds changes. */
  readonly version: number;
  /** What it is and how large, for the log: "QEMU and a kernel (about 100 MB)". */
  readonly title: string;
  /** Packages to download with all their dependencies. */
  readonly packages: readonly string[];
  /** Suite that these are preferred from. Default: the release. */
  readonly suite?: string;
  /** Packages to download without their dependencies; `query` runs apt-cache. */
  readonly alone?: (query: (argv: readonly string[]) => string) => readonly string[];
}

/**
 * The folder with the files of Debian packages, unpacked but not installed, from the cache or else from the machine's
 * own Debian mirror (`IVSHMEM_VM_MIRROR` names another one). The packages are chosen, verified and downloaded by an apt
 * with a configuration and a state of its own, so the machine's packages stay as they are, and neither root nor a chroot
 * is needed. An interrupted download is resumed. `log` receives a line for each slow step. Throws an Error of
 * one line with the remedy.
 */
export function unpackedPackages(set: PackageSet, log: (line: string) => void): string {
  const cache = cacheDirectory();
  const root = join(cache, `${set.name}-${set.version}`);
  if (!existsSync(root)) fetchPackages(set, root, log);
  return root;
}

function fetchPackages(set: PackageSet, root: string, log: (line: string) => void): void {
  if (!existsSync(KEYRING)) {
    throw new Error(`${KEYRING}: not found: install it with "apt-get install debian-archive-keyring"`);
  }
  // State of this set alone: another process may be fetching another one.
  const folder = `${root}.apt`;
  mkdirSync(folder, { recursive: true });
  const mirror = debianMirror(folder);
  const env = { ...process.env, LC_ALL: 'C', APT_CONFIG: aptConfiguration(folder, mirror) };
  log(`fetching ${set.title} from ${mirror}, ${set.suite ?? RELEASE}, into ${root}, once`);
  const archives = join(folder, 'archives');
  const apt = (argv: readonly string[], cwd?: string) =>
    fetch(mirror, argv, { env, ...(cwd !== undefined && { cwd }) });
  apt(['update']);
  if (set.packages.length > 0) {
    apt(['-y', '--download-only', '-t', set.suite ?? RELEASE, 'install', ...set.packages]);
  }
  const alone = set.alone?.((argv) => runCommand('apt-cache', argv, { env }).toString()) ?? [];
  if (alone.length > 0) apt(['download', ...alone], archives);

  // Several processes may do this at once: the first one to finish gives its tree the name.
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
  rmSync(folder, { recursive: true, force: true });
}

/**
 * The mirror that `IVSHMEM_VM_MIRROR` names, or else that apt takes Debian itself from here. `cache` is a folder for lists of
 * packages. Throws an Error of one line with the remedy.
 */
export function debianMirror(cache: string = cacheDirectory()): string {
  const known = process.env.IVSHMEM_VM_MIRROR ?? listedMirror();
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

/** The mirror in apt's list of sources; null if there is none. */
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
  const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
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
    'APT::Architecture': architecture,
    'APT::Architectures': architecture,
    'APT::Install-Recommends': 'false',
  };
  const lines = Object.entries(settings).map(([name, value]) => `${name} "${value}";\n`);
  writeFileSync(file('apt.conf'), lines.join(''));
  return file('apt.conf');
}
