import { limitRemedy, OptionError, SystemCallError } from '@ivshmem/linux';
import { openOutput, printable } from '@ivshmem/linux/process';
import { EXIT_FAILURE, EXIT_USAGE } from './exit.ts';

/** Writes one line to standard error that names the error (with `verbose`, the stack too). Returns the exit code: 2 for an {@link OptionError}. */
export async function reportError(error: unknown, verbose: boolean): Promise<number> {
  await using stderr = openOutput(2);
  const stack = verbose && error instanceof Error ? (error.stack ?? '').split('\n') : [];
  for (const line of [`ivshmem: ${messageOf(error)}`, ...stack]) stderr.write(`${printable(line)}\n`);
  return error instanceof OptionError ? EXIT_USAGE : EXIT_FAILURE;
}

/** Writes what commander says about a command line: its error, or the help text if there is no command. */
export async function reportCommandLine(text: string): Promise<number> {
  await using stderr = openOutput(2);
  stderr.write(text.startsWith(ERROR) ? errorLine(text) : text);
  return EXIT_USAGE;
}

const ERROR = 'error: ';

/** One line; commander puts a suggestion in a second one. */
function errorLine(text: string): string {
  const message = text
    .slice(ERROR.length)
    .trim()
    .replace(/\s*\n\s*/g, ' ');
  return `${printable(`ivshmem: ${message}`)} (try --help)\n`;
}

/** In one line, with the remedy if a limit of the machine is the cause. */
function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const remedy = limitRemedy((error as NodeJS.ErrnoException).code);
  return remedy === undefined || error instanceof SystemCallError
    ? error.message
    : `${error.message}: ${remedy}`;
}
