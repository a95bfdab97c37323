import { statfsSync } from 'node:fs';
import { constants } from 'node:os';
import { SystemCallError } from '../errors.ts';
import * as libc from '../libc.ts';

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const { EINTR, ENXIO, EINVAL, ENOSPC, EOPNOTSUPP, EDQUOT } = constants.errno;

/**
 * Zeroes the bytes `offset` … `offset + length` - 1 of a file by freeing its pages or disk blocks, without changing its size.
 * The time depends only on the number of allocated pages. Works on a memfd with a sealed size. On hugetlbfs only huge pages
 * completely inside the range are freed. Returns false if the file system does not support it; throws
 * {@link SystemCallError}.
 */
export function punchHole(fd: number, offset: number, length: number): boolean {
  if (libc.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) === 0) return true;
  const errno = libc.errno();
  if (errno === EOPNOTSUPP) return false;
  throw new SystemCallError('fallocate', `fd ${fd}`, errno);
}

/**
 * Allocates pages or disk blocks for the bytes `offset` … `offset + length` - 1 of a file without changing their values.
 * Otherwise an access to a mapping fails with SIGBUS if the file system is full. Returns false if the file system does not
 * support it; throws {@link SystemCallError}: ENOSPC and EDQUOT with the free space and a remedy, after freeing what it has
 * allocated.
 */
export function reserveRange(fd: number, offset: number, length: number, subject: string): boolean {
  for (;;) {
    if (libc.fallocate(fd, 0, offset, length) === 0) return true;
    const errno = libc.errno();
    if (errno === EINTR) continue;
    if (errno === EOPNOTSUPP) return false;
    if (errno !== ENOSPC && errno !== EDQUOT) throw new SystemCallError('fallocate', subject, errno);
    const { bavail, bsize } = statfsSync(`/proc/self/fd/${fd}`);
    const need = `needs ${length} bytes, and its file system has ${bavail * bsize} free`;
    const remedy = 'enlarge that (mount -o remount,size=…, --shm-size of a container), or share less';
    throw new SystemCallError('fallocate', subject, errno, `${need}: ${remedy}`);
  }
}

/**
 * Returns the parts of the bytes `start` … `end` - 1 of a file that may hold data, in order. Between them are holes or pages
 * that were only reserved. On a file system without holes it is the whole range. Throws {@link SystemCallError}.
 */
export function* dataRanges(fd: number, start: number, end: number): Generator<{ from: number; to: number }> {
  for (let at = start; at < end; ) {
    const from = seek(fd, at, SEEK_DATA, end);
    if (from >= end) return;
    const to = Math.min(seek(fd, from, SEEK_HOLE, end), end);
    yield { from, to };
    at = to;
  }
}

/** lseek(2) to data or to a hole; `none` if there is none, or if the file ends before `offset`. */
function seek(fd: number, offset: number, whence: number, none: number): number {
  const found = libc.lseek(fd, offset, whence);
  if (found !== -1) return found;
  const errno = libc.errno();
  if (errno === ENXIO) return none;
  // Not known to this file system: everything may be data.
  if (errno === EINVAL) return whence === SEEK_DATA ? offset : none;
  throw new SystemCallError('lseek', `fd ${fd}`, errno);
}
