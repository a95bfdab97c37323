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
 * Writes the process ID to the file at `path`. Returns a function that removes the file, unless another process has
 * written its ID there since. Does not follow links, since another user may own the directory. Throws
 * {@link SystemCallError}.
 */
export function writePidFile(path: string): () => void {
  const fd = openPidFile(path, O_RDWR | O_CREAT);
  try {
    const status = fstatSync(fd);
    if (!status.isFile() || status.nlink !== 1) throw notOurs(path);
    write(fd, path);
  } finally {
    closeSync(fd);
  }
  return () => removePidFile(path);
}

/** An empty file would be left behind if it cannot be written, as on a full file system. */
function write(fd: number, path: string): void {
  try {
    ftruncateSync(fd);
    writeSync(fd, `${process.pid}\n`, 0);
  } catch (error) {
    unlinkSync(path);
    throw new SystemCallError('write', `PID file ${path}`, -((error as NodeJS.ErrnoException).errno ?? 0));
  }
}

function removePidFile(path: string): void {
  try {
    const fd = openPidFile(path, O_RDWR);
    const text = Buffer.alloc(32);
    const length = readSync(fd, text);
    closeSync(fd);
    if (Number(text.toString('latin1', 0, length)) === process.pid) unlinkSync(path);
  } catch {
    // The file is gone, or is not a PID file.
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
  const problem = 'is a link or not a regular file: choose another path with -p';
  return new SystemCallError('open', `PID file ${path}`, EEXIST, problem);
}
