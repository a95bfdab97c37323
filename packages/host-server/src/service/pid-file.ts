import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { constants as os } from 'node:os';
import { SystemCallError } from '@ivshmem/linux';

const { EEXIST } = os.errno;
const { O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDWR } = constants;

/**
 * Writes this process's ID to the file at `path`, and returns the function that removes it, unless a successor has
 * written its own there. The file may be in a directory of another user: a link is not followed. Throws
 * {@link SystemCallError}.
 */
export function writePidFile(path: string): () => void {
  const fd = openPidFile(path, O_RDWR | O_CREAT);
  try {
    const status = fstatSync(fd);
    if (!status.isFile() || status.nlink !== 1) throw notOurs(path);
    ftruncateSync(fd);
    writeSync(fd, `${process.pid}\n`, 0);
  } finally {
    closeSync(fd);
  }
  return () => removePidFile(path);
}

function removePidFile(path: string): void {
  try {
    const fd = openPidFile(path, O_RDWR);
    const text = Buffer.alloc(32);
    const length = readSync(fd, text);
    closeSync(fd);
    if (Number(text.toString('latin1', 0, length)) === process.pid) unlinkSync(path);
  } catch {
    // It is gone, or something else is there.
  }
}

function openPidFile(path: string, flags: number): number {
  try {
    return openSync(path, flags | O_NOFOLLOW | O_NONBLOCK, 0o644);
  } catch (error) {
    const { code, errno = 0 } = error as NodeJS.ErrnoException;
    if (code === 'ELOOP' || code === 'EISDIR') throw notOurs(path);
    throw new SystemCallError('open', `PID file ${path}`, -errno);
  }
}

function notOurs(path: string): SystemCallError {
  const problem = 'a link, or no regular file, is there: choose another path by -p';
  return new SystemCallError('open', `PID file ${path}`, EEXIST, problem);
}
