import { PATH_REMEDIES, SystemCallError } from '@ivshmem/linux';
import { LIMIT_REMEDY } from './descriptor-budget.ts';

/** Remedies by error code. */
const REMEDIES: Readonly<Record<string, string>> = {
  ...PATH_REMEDIES,
  EPERM: 'run it as a user with that permission; the kernel log has denials by SELinux or AppArmor',
  EMFILE: `RLIMIT_NOFILE is reached: ${LIMIT_REMEDY}`,
  ENFILE: 'the system has no descriptors left: raise fs.file-max by sysctl',
  ENOSPC: 'free space on that file system, or choose another one',
  EDQUOT: 'the quota of this user is used up: choose another file system',
  ENOMEM: 'share less memory, or raise the limit of the cgroup (MemoryMax= of the systemd unit)',
  EFBIG: 'share less memory, or raise RLIMIT_FSIZE (LimitFSIZE= of the systemd unit, ulimit -f)',
  EAGAIN: 'raise RLIMIT_MEMLOCK (LimitMEMLOCK= of the systemd unit, ulimit -l)',
};

/** The error's message, in one line; for a failed system call or file operation, with a remedy. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code, syscall } = error as NodeJS.ErrnoException;
  const remedy = code === undefined || syscall === undefined ? undefined : REMEDIES[code];
  const isExplained = error instanceof SystemCallError && error.isExplained;
  return remedy === undefined || isExplained ? error.message : `${error.message}: ${remedy}`;
}
