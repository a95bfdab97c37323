import { getSystemErrorMap } from 'node:util';
import * as libc from './libc.ts';

const byNumber = getSystemErrorMap();
// Node has names for what libuv knows.
byNumber.set(-77, ['EBADFD', 'file descriptor in bad state']);

/** A system call that failed: `bind /run/x.sock: EADDRINUSE: address already in use`, and the remedy where known. */
export class SystemCallError extends Error {
  /** The errno's name, for example `ENOENT`. */
  readonly code: string;
  /** The positive errno. */
  readonly errno: number;
  /** The call, for example `mmap`. */
  readonly syscall: string;
  /** What the call was made on: a path, an interface, `fd 7`. */
  readonly subject: string;
  /** The message says more than the errno's own text. */
  readonly isExplained: boolean;

  /** `explanation` says more than the errno's own text where the caller knows more, or knows a remedy. */
  constructor(syscall: string, subject: string, errno: number, explanation?: string) {
    const [code, text] = byNumber.get(-errno) ?? [`errno ${errno}`, 'unknown error'];
    super(`${syscall} ${subject}: ${code}: ${explanation ?? text}`);
    this.name = 'SystemCallError';
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
    this.subject = subject;
    this.isExplained = explanation !== undefined;
  }
}

/**
 * Passes a call's result on, or throws {@link SystemCallError} where it is -1. Ask right after the call:
 * the next one overwrites errno.
 */
export function check(result: number, syscall: string, subject: string): number {
  if (result === -1) throw new SystemCallError(syscall, subject, libc.errno());
  return result;
}
