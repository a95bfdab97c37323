import { limitRemedy, OptionError, SystemCallError } from '@ivshmem/linux';
import { type Output, printable } from '@ivshmem/linux/process';
import { CommanderError, InvalidArgumentError } from 'commander';

/** Exit codes of all commands. */
export const EXIT_OK = 0;
export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;

/** A mistake in the arguments, as opposed to something that this machine can't do. */
export class UsageError extends Error {}

/** Writes one line that says what is wrong (the stack, too, with `verbose`), and returns the exit code. */
export function reportError(error: unknown, verbose: boolean, stderr: Output): number {
  // commander has printed its own line already; --help and --version come here, too.
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_OK : EXIT_USAGE;
  const message = messageOf(error);
  const stack = verbose && error instanceof Error ? (error.stack ?? '').split('\n') : [];
  for (const line of [`ivshmem: ${message}`, ...stack]) stderr.write(`${printable(line)}\n`);
  return error instanceof UsageError || error instanceof OptionError ? EXIT_USAGE : EXIT_FAILURE;
}

/** In one line, with the remedy if a limit of the machine is behind it. */
function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const remedy = limitRemedy((error as NodeJS.ErrnoException).code);
  return remedy === undefined || error instanceof SystemCallError
    ? error.message
    : `${error.message}: ${remedy}`;
}

/** An option's value as a whole number. */
export function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('It must be a whole number.');
  return Number(text);
}

/** An option's value as a time that a timer can measure. */
export function seconds(text: string): number {
  const value = wholeNumber(text);
  if (value < 1 || value > 86_400) throw new InvalidArgumentError('It must be 1 to 86400 seconds.');
  return value;
}

/** Appends each value of an option that may be given several times. */
export function collect(text: string, previous: readonly string[]): string[] {
  return [...previous, text];
}

/** Ctrl-C, a service manager, a terminal that was closed. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Aborts on SIGINT, SIGTERM and SIGHUP; a second signal of either kind ends the process at once. */
export function abortOnSignals(): { signal: AbortSignal; [Symbol.dispose](): void } {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals) => {
    if (controller.signal.aborted) process.exit(EXIT_FAILURE);
    controller.abort(name);
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      for (const name of SIGNALS) process.off(name, onSignal);
    },
  };
}

/** Aborts when standard input has come to its end, however that happens. */
export function abortOnEof(): { signal: AbortSignal; [Symbol.dispose](): void } {
  const controller = new AbortController();
  process.stdin
    .on('error', () => {})
    .once('close', () => controller.abort())
    .resume();
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      process.stdin.pause();
    },
  };
}
