import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { debianPackage } from './debian-package.ts';
import { guestTarball } from './guest-tarball.ts';
import { sourceDate } from './tree.ts';

// Builds all files of a release in the folder that is given, from what "npm run build" has made: the packages of npm (with
// --npm), the Debian packages, the tarball, with --npm also a bill of materials and checksums of all.

const workspace = fileURLToPath(new URL('../..', import.meta.url));
const [folder = 'release', ...flags] = process.argv.slice(2);
const output = resolve(folder);
const { version } = JSON.parse(readFileSync(join(workspace, 'packages/cli/package.json'), 'utf8'));
const date = sourceDate(workspace);

/** Without what npm sets for its scripts. */
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('npm_')));
const npm = (...argv: string[]) =>
  execFileSync('npm', argv, { cwd: workspace, env, encoding: 'utf8', maxBuffer: 2 ** 26 });

/** With the date of the release, and a name that depends on the content. */
function billOfMaterials(): string {
  const argv = [
    'sbom',
    '--package-lock-only',
    '--omit=dev',
    '--sbom-format=spdx',
    '--workspace=packages/cli',
  ];
  const bill = JSON.parse(npm(...argv));
  bill.creationInfo.created = date.toISOString().replace(/\.\d+Z$/, 'Z');
  const digest = createHash('sha256').update(JSON.stringify(bill.packages)).digest('hex').slice(0, 32);
  bill.documentNamespace = `http://spdx.org/spdxdocs/ivshmem-${version}-${digest}`;
  return `${JSON.stringify(bill, null, 2)}\n`;
}

rmSync(output, { recursive: true, force: true });
mkdirSync(output, { recursive: true });
for (const architecture of ['x64', 'arm64'] as const) {
  await debianPackage(workspace, output, version, date, architecture);
}
await guestTarball(workspace, output, version, date);
if (flags.includes('--npm')) {
  const packages = readdirSync(join(workspace, 'packages')).map((name) => `--workspace=packages/${name}`);
  npm('pack', '--ignore-scripts', '--silent', `--pack-destination=${output}`, ...packages);
  writeFileSync(join(output, `ivshmem-${version}.spdx.json`), billOfMaterials());
  const sums = readdirSync(output)
    .sort()
    .map((name) => {
      return `${createHash('sha256')
        .update(readFileSync(join(output, name)))
        .digest('hex')}  ${name}\n`;
    });
  writeFileSync(join(output, 'SHA256SUMS'), sums.join(''));
}
for (const name of readdirSync(output).sort()) console.log(join(folder, name));
