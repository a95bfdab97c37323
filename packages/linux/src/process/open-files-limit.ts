import { check } from '../errors.ts';
import * as libc from '../libc.ts';

const RLIMIT_NOFILE = 7;

/** RLIMIT_NOFILE: how many descriptors this process may have open. */
export interface OpenFilesLimit {
  /** The limit in effect: descriptors are below it, and at most as many of this user may be in flight in sockets. */
  readonly soft: number;
  /** The maximum for the soft limit. */
  readonly hard: number;
}

/** The limit as it is now. Throws `SystemCallError`. */
export function openFilesLimit(): OpenFilesLimit {
  const limits = new BigUint64Array(2);
  check(
    libc.getrlimit(RLIMIT_NOFILE, new Uint8Array(limits.buffer)),
    'getrlimit RLIMIT_NOFILE',
    'this process',
  );
  // RLIM_INFINITY, all ones, exceeds 2^53 and fs.nr_open.
  return { soft: Number(limits[0]), hard: Number(limits[1]) };
}

/**
 * Sets the soft limit, up to the hard limit, for all threads of this process; child processes inherit it. Throws
 * `SystemCallError` (EINVAL above the hard limit).
 */
export function setOpenFilesLimit(soft: number): void {
  const { hard } = openFilesLimit();
  const limits = new BigUint64Array([BigInt(soft), BigInt(hard)]);
  check(
    libc.setrlimit(RLIMIT_NOFILE, new Uint8Array(limits.buffer)),
    'setrlimit RLIMIT_NOFILE',
    `${soft} of at most ${hard}`,
  );
}

/** Raises the soft limit to the hard limit, and returns that. Throws `SystemCallError`. */
export function raiseOpenFilesLimit(): number {
  const { soft, hard } = openFilesLimit();
  if (soft < hard) setOpenFilesLimit(hard);
  return hard;
}
