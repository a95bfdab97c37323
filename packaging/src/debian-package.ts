import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { programReferences } from '@ivshmem/cli/reference';
import { bundle } from './bundle.ts';
import { type Architecture, copyKoffi } from './koffi.ts';
import { type Licence, licences } from './licences.ts';
import { referenceFiles } from './reference/files.ts';
import { link, normalize, put, putCompressed } from './tree.ts';

const DEBIAN_NAME = { x64: 'amd64', arm64: 'arm64' } as const;
/** Of this packaging of a version. */
const REVISION = 1;
/** The folders in packaging/ with what systemd reads, and where it looks for that. */
const SYSTEMD = { systemd: 'systemd/system', 'sysusers.d': 'sysusers.d', 'tmpfiles.d': 'tmpfiles.d' };
/** Control files that maintainer scripts and dpkg read. */
const SCRIPTS = ['postinst', 'prerm', 'postrm'];

/** Builds `ivshmem_VERSION-1_ARCHITECTURE.deb` in `output` with dpkg-deb. Returns the path. */
export async function debianPackage(
  workspace: string,
  output: string,
  version: string,
  date: Date,
  architecture: Architecture,
): Promise<string> {
  const packaging = join(workspace, 'packaging');
  const debian = (name: string) => readFileSync(join(packaging, 'debian', name), 'utf8');
  const full = `${version}-${REVISION}`;
  const staging = mkdtempSync(join(tmpdir(), 'ivshmem-deb-'));
  try {
    const root = join(staging, 'root');
    const usr = join(root, 'usr');
    const home = join(usr, 'lib/ivshmem');
    const packages = await bundle(workspace, join(home, 'lib'), '/usr/bin/node');
    put(
      join(home, 'package.json'),
      `${JSON.stringify({ name: 'ivshmem', version, private: true, type: 'module' })}\n`,
    );
    copyKoffi(workspace, architecture, 'linux', join(home, 'lib/koffi'));
    for (const command of ['ivshmem', 'ivshmem2-server'])
      link(join(usr, 'bin', command), `../lib/ivshmem/lib/${command}.js`);
    for (const [from, to] of Object.entries(SYSTEMD)) {
      for (const name of readdirSync(join(packaging, from))) {
        put(join(usr, 'lib', to, name), readFileSync(join(packaging, from, name)));
      }
    }
    for (const { path, text } of referenceFiles(await programReferences(), date)) {
      if (path.startsWith('man/')) putCompressed(join(usr, 'share', `${path}.gz`), text);
      else put(join(usr, 'share', path), text);
    }
    const doc = join(usr, 'share/doc/ivshmem');
    put(join(doc, 'README.md'), readFileSync(join(workspace, 'README.md')));
    for (const name of readdirSync(join(workspace, 'docs'))) {
      if (name.endsWith('.md')) put(join(doc, 'docs', name), readFileSync(join(workspace, 'docs', name)));
    }
    putCompressed(join(doc, 'changelog.gz'), readFileSync(join(workspace, 'CHANGELOG.md'), 'utf8'));
    putCompressed(
      join(doc, 'changelog.Debian.gz'),
      fill(debian('changelog'), { version: full, date: rfc2822(date) }),
    );
    put(
      join(doc, 'copyright'),
      `${debian('copyright')}${licences(workspace, packages).map(stanza).join('')}`,
    );
    put(join(usr, 'share/lintian/overrides/ivshmem'), debian('lintian-overrides'));
    mkdirSync(join(root, 'etc/ivshmem'), { recursive: true });

    const sums = filesBelow(root).map((path) => {
      const digest = createHash('md5')
        .update(readFileSync(join(root, path)))
        .digest('hex');
      return `${digest}  ${path}\n`;
    });
    const kibibytes = filesBelow(root).reduce(
      (sum, path) => sum + Math.ceil(statSync(join(root, path)).size / 1024),
      0,
    );
    put(join(root, 'DEBIAN/md5sums'), sums.join(''));
    put(
      join(root, 'DEBIAN/control'),
      fill(debian('control'), {
        version: full,
        architecture: DEBIAN_NAME[architecture],
        size: String(kibibytes),
      }),
    );
    for (const name of SCRIPTS)
      put(join(root, 'DEBIAN', name), fill(debian(name), unitNames(packaging)), 0o755);
    normalize(root, date);
    const file = join(output, `ivshmem_${full}_${DEBIAN_NAME[architecture]}.deb`);
    const env = { ...process.env, SOURCE_DATE_EPOCH: String(date.getTime() / 1000) };
    const options = ['--root-owner-group', '-Zxz', '--threads-max=1', '--build'];
    execFileSync('dpkg-deb', [...options, root, file], { env, stdio: ['ignore', 'ignore', 'inherit'] });
    return file;
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}

/** For the maintainer scripts: `@units@`, what systemctl stops; `@plain@`, units that have no instances. */
function unitNames(packaging: string): Record<string, string> {
  const names = readdirSync(join(packaging, 'systemd')).sort();
  // Sockets first, which would start their service again.
  const ordered = [
    ...names.filter((name) => name.endsWith('.socket')),
    ...names.filter((name) => !name.endsWith('.socket')),
  ];
  return {
    units: ordered.map((name) => `'${name.replace('@.', '@*.')}'`).join(' '),
    plain: names.filter((name) => !name.includes('@')).join(' '),
  };
}

/** Replaces `@name@`. */
function fill(template: string, values: Readonly<Record<string, string>>): string {
  return template.replace(/@(\w+)@/g, (found, name: string) => values[name] ?? found);
}

/** As a Debian changelog has it. */
function rfc2822(date: Date): string {
  return date.toUTCString().replace('GMT', '+0000');
}

/** Of the machine-readable copyright file. */
function stanza({ name, licence, holders, text }: Licence): string {
  const terms =
    licence === 'Apache-2.0'
      ? 'On Debian systems, the full text is in /usr/share/common-licenses/Apache-2.0.'
      : text;
  const body = (terms || licence).split('\n').map((line) => ` ${line.trim() || '.'}\n`);
  return `\nFiles: node_modules/${name}/*\nCopyright: ${holders.map((holder) => holder.replace(/^copyright( \(c\))? */i, '')).join('\n           ')}\nLicense: ${licence}${licence === 'MIT' || licence === 'Apache-2.0' ? '' : ''}-${name.replace(/\W+/g, '-')}\n${body.join('')}`;
}

function filesBelow(root: string): string[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1))
    .sort();
}
