import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { guestTarball } from '@ivshmem/packaging/guest-tarball';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { debianRoot } from '../systemd/debian-root.ts';

const workspace = fileURLToPath(new URL('../..', import.meta.url));
const VERSION = '0.1.0';

// Needs buildah ("apt-get install buildah"), root, and a minute: on a Debian system in place of the image that the recipe
// names, since no registry of images is asked.
describe.runIf(process.env.IVSHMEM_IMAGE_TESTS === 'yes')('the container image', () => {
  let directory: string;
  const buildah = (command: string, ...argv: string[]): string => {
    const store = [
      '--root',
      join(directory, 'root'),
      '--runroot',
      join(directory, 'run'),
      '--storage-driver=vfs',
    ];
    // Needs no more than a checkout's user namespaces would give: no mounts of overlays, no container runtime.
    return execFileSync('buildah', [...store, command, ...argv], {
      encoding: 'utf8',
      env: { ...process.env, BUILDAH_ISOLATION: 'chroot' },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
  };

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'ivshmem-image-'));
    await guestTarball(workspace, directory, VERSION, new Date(0));
    execFileSync('tar', ['-C', debianRoot(console.log), '-cf', join(directory, 'root.tar'), '.']);
    writeFileSync(join(directory, 'Containerfile'), 'FROM scratch\nADD root.tar /\n');
    buildah('build', '-q', '-t', 'localhost/debian', '-f', join(directory, 'Containerfile'), directory);
    const recipe = join(workspace, 'packaging/Containerfile');
    const values = ['--build-arg', 'BASE=localhost/debian', '--build-arg', `VERSION=${VERSION}`];
    buildah('build', '-q', ...values, '-t', 'localhost/ivshmem', '-f', recipe, directory);
  }, 300_000);

  afterAll(() => {
    buildah('rm', '--all');
    rmSync(directory, { recursive: true });
  });

  it('runs a host server as an ordinary user', () => {
    const container = buildah('from', 'localhost/ivshmem').trim();
    const script = `id -u; ivshmem server -S /run/ivshmem/x.sock -P 1 -p /tmp/pid
      ivshmem peers -S /run/ivshmem/x.sock; kill $(cat /tmp/pid)`;
    const printed = buildah('run', container, '--', 'sh', '-euc', script);
    expect(printed).toMatch(/^1000\n\/run\/ivshmem\/x\.sock: 0 of 2 peers/);
  });
});
