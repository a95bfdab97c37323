import { getSystemErrorMap } from 'node:util';
import * as libc from './libc.ts';

const byNumber = getSystemErrorMap();

/** Remedies for errnos that come from a limit, for any call. */
const remedies: Record<string, string> = {
  EMFILE: 'raise the limit of this process ("ulimit -n", or LimitNOFILE= of its systemd unit)',
  ENFILE: 'raise fs.file-max: the whole machine has too many',
  ENOMEM: 'raise the limit of this process ("ulimit -v") or of its control group, or share less memory',
  ENOSYS: 'use a newer kernel, or a container without a seccomp profile that hides the call',
};
const THREADS =
  'raise the limit of threads ("ulimit -u", TasksMax= of its systemd unit, or pids.max of its control group)';

const INCOMPLETE =
  'install the packages again; if they are complete, raise the limit of open files ("ulimit -n")';

/** Remedies, by error code, for a file or a socket that can't be created at a path. */
export const PATH_REMEDIES: Readonly<Record<string, string>> = {
  EACCES:
    'change the permissions of the directory, or choose another path; the kernel log has denials by SELinux or AppArmor',
  EROFS: 'choose a path on a writable file system, such as /run',
  ENOENT: 'create the directory first',
  ENOTDIR: 'choose a directory',
};

/** The remedy for an errno that comes from a limit, by its name, such as `EMFILE`; undefined for others. */
export function limitRemedy(code: string | undefined): string | undefined {
  return code === undefined ? undefined : remedies[code];
}

/** The error of a worker's `error` event, with the remedy if it comes from a limit. */
export function threadError(error: Error & { readonly code?: string }): Error {
  if (error.code !== 'ERR_WORKER_INIT_FAILED') {
    // Node treats a package.json that it cannot open as missing.
    const remedy = error.code === 'ERR_MODULE_NOT_FOUND' ? INCOMPLETE : limitRemedy(error.code);
    return remedy === undefined ? error : new Error(`${error.message}: ${remedy}`, { cause: error });
  }
  // The message is just the name of an errno.
  const remedy = error.message === 'EAGAIN' ? THREADS : (limitRemedy(error.message) ?? THREADS);
  return new Error(`a thread can't be started: ${error.message}: ${remedy}`, { cause: error });
}
// Node has names only for the errnos that libuv knows.
byNumber.set(-77, ['EBADFD', 'file descriptor in bad state']);

/** A failed system call: `bind /run/x.sock: EADDRINUSE: address already in use`, with the remedy if one is known. */
export class SystemCallError extends Error {
  /** The errno's name, for example `ENOENT`. */
  readonly code: string;
  /** The positive errno. */
  readonly errno: number;
  /** The name of the call, for example `mmap`. */
  readonly syscall: string;
  /** The object of the call: a path, an interface, `fd 7`. */
  readonly subject: string;
  /** The message has an explanation in place of the errno's text. */
  readonly isExplained: boolean;

  /** `explanation`, such as a remedy, replaces the errno's text in the message. */
  constructor(syscall: string, subject: string, errno: number, explanation?: string) {
    const [code, text] = byNumber.get(-errno) ?? [`errno ${errno}`, 'unknown error'];
    super(
      `${syscall} ${subject}: ${code}: ${explanation ?? [text, limitRemedy(code)].filter(Boolean).join(': ')}`,
    );
    this.name = 'SystemCallError';
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
    this.subject = subject;
    this.isExplained = explanation !== undefined;
  }
}

/**
 * Returns the result of a call; throws {@link SystemCallError} if it is -1. Must follow the call immediately, since the
 * next one overwrites errno.
 */
export function check(result: number, syscall: string, subject: string): number {
  if (result === -1) throw new SystemCallError(syscall, subject, libc.errno());
  return result;
}

/** The {@link SystemCallError} of a call that creates a file or a socket at `path`, with the remedy where known. */
export function pathError(syscall: string, path: string, errno: number): SystemCallError {
  const [code, text] = byNumber.get(-errno) ?? [];
  const remedy = code === undefined ? undefined : PATH_REMEDIES[code];
  return new SystemCallError(syscall, path, errno, remedy && `${text}: ${remedy}`);
}
