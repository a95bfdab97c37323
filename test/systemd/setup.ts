import { missingNetworkPrivilege } from '@ivshmem/linux/network';
import { unpackedPackages } from '@ivshmem/vm/debian-packages';
import type { TestProject } from 'vitest/node';
import { debianRoot } from './debian-root.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** Where the packages with systemd are, or why there are none, in one line. */
    systemd: { readonly tree: string } | { readonly obstacle: string };
    /** A Debian system to install the package into. */
    debian: { readonly root: string } | { readonly obstacle: string };
  }
}

/** Fetches systemd, and what it takes to run the units, once before all tests, which have a limit of time. */
export function setup(project: TestProject): void {
  project.provide('systemd', systemd());
  project.provide('debian', debian());
}

function debian() {
  const missing = missingNetworkPrivilege();
  if (missing !== null) return { obstacle: missing };
  try {
    return { root: debianRoot(console.log) };
  } catch (error) {
    return { obstacle: (error as Error).message };
  }
}

function systemd() {
  const missing = missingNetworkPrivilege();
  if (missing !== null) return { obstacle: missing };
  try {
    const tree = unpackedPackages(
      {
        name: 'systemd',
        version: 1,
        title: 'systemd (about 30 MB)',
        packages: [
          'base-files',
          'coreutils',
          'dash',
          'findutils',
          'iproute2',
          'iputils-ping',
          // For Node.js.
          'libstdc++6',
          // kill(1)
          'procps',
          'sed',
          'systemd',
          'util-linux',
        ],
      },
      console.log,
    );
    return { tree };
  } catch (error) {
    return { obstacle: (error as Error).message };
  }
}
