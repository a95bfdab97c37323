import { type ChildProcess, spawn } from 'node:child_process';
import { type PassedDescriptor, STANDBY } from '@ivshmem/linux/process';

/** How a process has ended. */
export interface ProcessEnd {
  /** The exit code; null after a signal. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** The shell becomes the program, which so gets its own process ID in LISTEN_PID. */
const SCRIPT = 'LISTEN_PID=$$; export LISTEN_PID; exec "$@"';

/**
 * Starts a program with the variables of sd_listen_fds(3) for these descriptors, of which the caller keeps its own. It is in a
 * session of its own: signals of a terminal reach it through its supervisor only.
 */
export function startChild(
  command: readonly string[],
  passed: readonly PassedDescriptor[],
  variables: Readonly<Record<string, string>>,
): ChildProcess {
  const listen = passed.length > 0 && {
    LISTEN_FDS: String(passed.length),
    LISTEN_FDNAMES: passed.map(({ name }) => name).join(':'),
  };
  return start(
    command,
    passed.map(({ fd }) => fd),
    { ...variables, ...listen },
  );
}

/** Starts one of this package's programs, which loads everything and then waits for `handOver` at the other end of `socketFd`. */
export function startStandby(
  command: readonly string[],
  socketFd: number,
  variables: Readonly<Record<string, string>>,
): ChildProcess {
  return start(command, [socketFd], { ...variables, [STANDBY]: '3' });
}

function start(
  command: readonly string[],
  fds: readonly number[],
  variables: Readonly<Record<string, string>>,
): ChildProcess {
  const { LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID, WATCHDOG_USEC, WATCHDOG_PID, ...environment } = process.env;
  return spawn('/bin/sh', ['-c', SCRIPT, 'sh', ...command], {
    stdio: ['inherit', 'inherit', 'inherit', ...fds],
    env: { ...environment, ...variables },
    detached: true,
  });
}
