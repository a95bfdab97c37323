import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { BACKPORTS, RELEASE, unpackedPackages } from './debian-packages.ts';

/** Files of Debian packages: QEMU with all its libraries, a kernel, a static busybox. */
export interface DebianTree {
  readonly root: string;
  /** Absolute path of the kernel. */
  readonly kernel: string;
  /** Its release, for example `6.12.0-cloud-amd64`. */
  readonly release: string;
  readonly busybox: string;
}

/** The tree, from the cache or a mirror, as {@link unpackedPackages}. Throws an Error of one line with the remedy. */
export function debianTree(log: (line: string) => void): DebianTree {
  if (process.arch !== 'x64') throw new Error(`virtual machines need an x86-64 host, not ${process.arch}`);
  const root = unpackedPackages(
    {
      name: RELEASE,
      version: 1,
      title: 'QEMU and a kernel (about 100 MB)',
      packages: ['qemu-system-x86'],
      // The first release with QEMU 10.1 or later, which has vfio-user-pci, has it in its backports.
      suite: BACKPORTS,
      alone: (query) => ['busybox-static', kernelPackage(query)],
    },
    log,
  );
  const kernel = readdirSync(join(root, 'boot')).find((name) => name.startsWith('vmlinuz-'));
  if (kernel === undefined) throw new Error(`${root}: holds no kernel; remove this folder and try again`);
  return {
    root,
    kernel: join(root, 'boot', kernel),
    release: kernel.slice('vmlinuz-'.length),
    busybox: join(root, 'usr/bin/busybox'),
  };
}

/** The image that the package for the current kernel depends on. */
function kernelPackage(query: (argv: readonly string[]) => string): string {
  const depends = query(['depends', `linux-image-cloud-amd64/${RELEASE}`]);
  const image = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
  if (image === undefined) throw new Error(`${RELEASE} has no package linux-image-cloud-amd64`);
  return image;
}
