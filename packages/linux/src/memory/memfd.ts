import { existsSync, fstatSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { check, SystemCallError } from '../errors.ts';
import { closeFd } from '../fd.ts';
import * as libc from '../libc.ts';
import { reserveShared, setFileLength } from './memory.ts';

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const MFD_HUGETLB = 4;
/** log2 of the page size goes above this bit of the flags. */
const MFD_HUGE_SHIFT = 26;
const { ENODEV } = constants.errno;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;

/** fcntl(2) seals: no more seals; the file cannot get shorter; it cannot get longer. */
export const F_SEAL_SEAL = 1;
export const F_SEAL_SHRINK = 2;
export const F_SEAL_GROW = 4;

/**
 * Creates zeroed anonymous shared memory of `size` bytes; the caller owns the descriptor. Unless `seal` is false, its size is
 * sealed, so that no peer can truncate it and so kill others that have it mapped. With `hugePageSize` (in bytes, 2^21 and
 * 2^30 on x86-64) it consists of huge pages, reserved at once, and `size` is a multiple of that. Throws
 * {@link SystemCallError}: ENODEV for an unsupported page size, ENOMEM if too few pages are free.
 */
export function createMemfd(
  name: string,
  size: number,
  options: { seal?: boolean; hugePageSize?: number | undefined } = {},
): number {
  const { seal = true, hugePageSize } = options;
  if (hugePageSize !== undefined) checkHugePageSize(name, hugePageSize);
  const huge = hugePageSize === undefined ? 0 : MFD_HUGETLB + Math.log2(hugePageSize) * 2 ** MFD_HUGE_SHIFT;
  const flags = MFD_CLOEXEC + MFD_ALLOW_SEALING + huge;
  const fd = check(libc.memfdCreate(name, flags), 'memfd_create', name);
  try {
    setFileLength(fd, size, `memfd ${name}`);
    if (hugePageSize !== undefined) reserveHugePages(fd, 0, size, hugePageSize, `memfd ${name}`);
    if (seal) {
      const seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
      check(libc.fcntl(fd, F_ADD_SEALS, 'int', seals), 'fcntl F_ADD_SEALS', `memfd ${name}`);
    }
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return fd;
}

/** The kernel's directory about huge pages of `size` bytes. */
function hugePagePool(size: number): string {
  return `/sys/kernel/mm/hugepages/hugepages-${size / 1024}kB`;
}

function checkHugePageSize(name: string, size: number): void {
  if (existsSync(hugePagePool(size))) return;
  const remedy = 'see /sys/kernel/mm/hugepages for those that it has';
  throw new SystemCallError(
    'memfd_create',
    name,
    ENODEV,
    `this machine has no huge pages of ${size} bytes: ${remedy}`,
  );
}

/**
 * Reserves huge pages for a range of a file (multiples of their size) until a hole is punched there. Otherwise an access
 * fails with SIGBUS if no huge page is free. Throws {@link SystemCallError} (ENOMEM if there are too few).
 */
export function reserveHugePages(
  fd: number,
  offset: number,
  length: number,
  pageSize: number,
  subject: string,
): void {
  try {
    // The reservation belongs to the file and stays with it.
    reserveShared(fd, offset, length, subject);
  } catch (error) {
    if (!(error instanceof SystemCallError) || error.code !== 'ENOMEM') throw error;
    const pool = hugePagePool(pageSize);
    const count = (file: string) => Number(readFileSync(`${pool}/${file}`, 'utf8'));
    // That count includes pages reserved for others.
    const free = Math.max(0, count('free_hugepages') - count('resv_hugepages'));
    const needed = length / pageSize;
    const remedy =
      free < needed
        ? `raise ${pageSize === 2 ** 21 ? '/proc/sys/vm/nr_hugepages' : `${pool}/nr_hugepages`}`
        : 'raise size= of the mount, or hugetlb.*.rsvd.max of the cgroup';
    const explanation = `needs ${needed} huge pages of ${pageSize} bytes, and at most ${free} are free: ${remedy}`;
    throw new SystemCallError('mmap', subject, error.errno, explanation);
  }
}

/** The seals of a file; 0 if it cannot have any (not a memfd). */
export function sealsOf(fd: number): number {
  const seals = libc.fcntl(fd, F_GET_SEALS, 'int', 0);
  return seals === -1 ? 0 : seals;
}

/** Whether a descriptor refers to a regular file, as for a memfd. */
export function isRegularFile(fd: number): boolean {
  return fstatSync(fd).isFile();
}

/** The length of a file in bytes. */
export function fileLength(fd: number): number {
  return fstatSync(fd).size;
}
