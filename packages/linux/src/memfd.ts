import { fstatSync } from 'node:fs';
import { check } from './errors.ts';
import { closeFd } from './fd.ts';
import * as libc from './libc.ts';
import { setFileLength } from './memory.ts';

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;

/** fcntl(2) seals: no more seals; the file cannot get shorter; it cannot get longer. */
export const F_SEAL_SEAL = 1;
export const F_SEAL_SHRINK = 2;
export const F_SEAL_GROW = 4;

/**
 * Anonymous shared memory of `size` bytes, zeroed; the caller owns the descriptor. Sealed against every change of
 * its size (unless `seal` is false), so that whoever maps it can't be killed by a peer that truncates it.
 * Throws {@link SystemCallError}.
 */
export function createMemfd(name: string, size: number, options: { seal?: boolean } = {}): number {
  const fd = check(libc.memfdCreate(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), 'memfd_create', name);
  try {
    setFileLength(fd, size, `memfd ${name}`);
    if (options.seal ?? true) {
      const seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
      check(libc.fcntl(fd, F_ADD_SEALS, 'int', seals), 'fcntl F_ADD_SEALS', `memfd ${name}`);
    }
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return fd;
}

/** The seals of a file; 0 where it cannot have any (not a memfd). */
export function sealsOf(fd: number): number {
  const seals = libc.fcntl(fd, F_GET_SEALS, 'int', 0);
  return seals === -1 ? 0 : seals;
}

/** The length of a file in bytes. */
export function fileLength(fd: number): number {
  return fstatSync(fd).size;
}
