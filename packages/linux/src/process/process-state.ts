import { readFileSync } from 'node:fs';

/** Of the kernel's task flags: the process is on its way out. */
const PF_EXITING = 0x4;
/** Behind the name in /proc/PID/stat: the state, and the flags. */
const STATE = 0;
const FLAGS = 6;

/**
 * Whether a process has ended, or is about to: its files may still be open for a moment. False for 0, which stands for
 * a process of another PID namespace.
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
