import { readFileSync } from 'node:fs';

/** Task flag of the kernel: the process is exiting. */
const PF_EXITING = 0x4;
/** State and flags after the name in /proc/PID/stat. */
const STATE = 0;
const FLAGS = 6;

/**
 * Whether a process has exited or is exiting; its files may still be open for a moment. False for 0, which stands for a
 * process in another PID namespace.
 */
export function hasProcessEnded(pid: number): boolean {
  if (pid <= 0) return false;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return 'ZX'.includes(fields[STATE]!) || (Number(fields[FLAGS]) & PF_EXITING) !== 0;
  } catch (error) {
    return ['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '');
  }
}
