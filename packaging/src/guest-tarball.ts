import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bundle } from './bundle.ts';
import { copyKoffi } from './koffi.ts';
import { licenceFile, licences } from './licences.ts';
import { link, normalize, put, tarball } from './tree.ts';

/**
 * Builds `ivshmem-VERSION-linux.tar.gz` in `output`: a folder with all that a guest needs but Node.js, for x86-64 and
 * arm64, glibc and musl. Returns the path.
 */
export async function guestTarball(
  workspace: string,
  output: string,
  version: string,
  date: Date,
): Promise<string> {
  const staging = mkdtempSync(join(tmpdir(), 'ivshmem-guest-'));
  try {
    const name = `ivshmem-${version}`;
    const root = join(staging, name);
    const packages = await bundle(workspace, join(root, 'lib'), '/usr/bin/env node');
    put(
      join(root, 'package.json'),
      `${JSON.stringify({ name: 'ivshmem', version, private: true, type: 'module' })}\n`,
    );
    for (const architecture of ['x64', 'arm64'] as const) {
      for (const libc of ['linux', 'musl'] as const)
        copyKoffi(workspace, architecture, libc, join(root, 'lib/koffi'));
    }
    for (const command of ['ivshmem', 'ivshmem2-server'])
      link(join(root, 'bin', command), `../lib/${command}.js`);
    for (const page of ['LICENSE', 'docs/guest.md']) {
      put(join(root, page.replace('docs/', '')), readFileSync(join(workspace, page)));
    }
    put(join(root, 'LICENSES-OF-PARTS'), licenceFile(licences(workspace, packages)));
    normalize(root, date);
    const file = join(output, `${name}-linux.tar.gz`);
    tarball(file, staging, name);
    return file;
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}
