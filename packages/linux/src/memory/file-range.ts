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
 * Sets the bytes `offset` … `offset + length` - 1 of a file to zero by releasing the memory or disk blocks behind them,
 * in a time that depends only on how many there are; the file's size stays. Works on a memfd whose size is sealed. On
 * hugetlbfs only huge pages that lie completely in the range count. Returns false if the file system cannot do it;
 * throws {@link SystemCallError}.
 */
export function punchHole(fd: number, offset: number, length: number): boolean {
  if (libc.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) === 0) return true;
  const errno = libc.errno();
  if (errno === EOPNOTSUPP) return false;
  throw new SystemCallError('fallocate', `fd ${fd}`, errno);
}

/**
 * Allocates the memory or disk blocks behind the bytes `offset` … `offset + length` - 1 of a file, which keep their
 * values: without that, an access to a mapping finds out that the file system is full, which kills the process. Returns
 * false if the file system cannot do it; throws {@link SystemCallError}: ENOSPC and EDQUOT with the free space and the
 * remedy. What was allocated before such an error is released again.
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
 * The parts of the bytes `start` … `end` - 1 of a file that are not known to be zero, in order. What lies between them
 * are holes, or pages that were only reserved. A file system without holes reports one part, the whole range. Throws
 * {@link SystemCallError}.
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
