import { EXIT_FAILURE } from './exit.ts';

/** Ctrl-C, a service manager, a terminal that was closed. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** The request to stop a command. Disposing it restores the defaults of the process. */
export interface StopSignal extends Disposable {
  readonly signal: AbortSignal;
}

/**
 * Aborts on SIGINT, SIGTERM and SIGHUP, and with `untilEof` when standard input ends. A second signal ends the process
 * immediately.
 */
export function openStopSignal(untilEof: boolean): StopSignal {
  const controller = new AbortController();
  let isSignalled = false;
  const onSignal = () => {
    if (isSignalled) process.exit(EXIT_FAILURE);
    isSignalled = true;
    controller.abort();
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  if (untilEof) {
    process.stdin
      .on('error', () => {})
      .once('close', () => controller.abort())
      .resume();
  }
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      for (const name of SIGNALS) process.off(name, onSignal);
      if (untilEof) process.stdin.pause();
    },
  };
}
