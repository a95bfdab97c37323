import { SystemCallError } from './errors.ts';
import * as libc from './libc.ts';

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const EOPNOTSUPP = 95;

/**
 * Takes the bytes `offset` … `offset + length` - 1 of a file back to zero by giving back the memory or disk blocks
 * behind them, in a time that does not depend on how many there could be; the file's size stays. Works on a memfd
 * whose size is sealed. On hugetlbfs only huge pages that lie completely in the range count. Returns false where the
 * file system cannot do it; throws {@link SystemCallError}.
 */
export function punchHole(fd: number, offset: number, length: number): boolean {
  if (libc.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) === 0) return true;
  const errno = libc.errno();
  if (errno === EOPNOTSUPP) return false;
  throw new SystemCallError('fallocate', `fd ${fd}`, errno);
}
