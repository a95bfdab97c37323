import { OptionError } from '@ivshmem/linux';
import { type Environment, printable } from '@ivshmem/linux/process';
import { settingsWarnings } from '../server/options.ts';
import { reasonOf } from '../server/remedies.ts';
import { parseServerArguments, type ServerArguments } from './arguments.ts';
import { type LogOutput, plainLog, type ServerLog, structuredLog } from './log.ts';
import type { ServerDialect } from './option-table.ts';
import { planLinks } from './plan.ts';
import { serve } from './serve.ts';
import { startedByServiceManager } from './service-manager.ts';
import { startDaemon } from './start-daemon.ts';
import { serverUsage } from './usage.ts';

export interface RunServerOptions {
  /** For the help and the log. */
  readonly stdout: LogOutput;
  /** For errors. */
  readonly stderr: LogOutput;
  /** `stdout` is a terminal: the extended dialect logs readable text there, and JSON otherwise. Default: false. */
  readonly terminal?: boolean;
  /** Name of the command in messages. Default `ivshmem2-server`. */
  readonly program?: string;
  /** Options and log format: `original` has a plain-text log, `extended` a structured one. Default: `original`. */
  readonly dialect?: ServerDialect;
  /** Stops a server in the foreground, like SIGTERM. */
  readonly signal?: AbortSignal;
  /** Default: `process.env`. */
  readonly environment?: Environment;
}

/**
 * Runs the host server as a command. `argv` is without the program's name. Resolves with the exit status: 0 after SIGINT or
 * SIGTERM, or when the daemon is listening; 1 if the server cannot be started; 2 for an invalid option on the command line
 * or in the configuration, before anything is created. A failure is one line on stderr.
 */
export async function runServer(argv: readonly string[], options: RunServerOptions): Promise<number> {
  const { stdout, stderr, program = 'ivshmem2-server', dialect = 'original' } = options;
  const { environment = process.env } = options;
  const printError = (text: string) => stderr.write(`${printable(`${program}: ${text}`)}\n`);
  try {
    const given = parseServerArguments(argv, dialect);
    if (given.help) {
      stdout.write(serverUsage(program, dialect));
      return 0;
    }
    const plan = planLinks(given, dialect);
    const foreground = staysInForeground(given, environment);
    if (!foreground || (dialect === 'original' && !given.verbose)) {
      // These modes do not log warnings.
      for (const { settings } of plan.links([])) settingsWarnings(settings).map(printError);
    }
    if (!foreground) {
      for (const [option, isGiven] of Object.entries({ '-v': given.verbose, '--json': given.json })) {
        if (isGiven) throw new OptionError(option, `${option}: a daemon has no log: add -F`);
      }
      for (const problem of await startDaemon(argv, dialect)) printError(problem);
      return 0;
    }
    await serve({
      ...plan,
      control: dialect === 'extended',
      metrics: given.metrics,
      log: logOf(given, options),
      signal: options.signal,
      environment,
    });
    return 0;
  } catch (error) {
    printError(reasonOf(error));
    if (!(error instanceof OptionError)) return 1;
    stderr.write(`Try '${program} -h' for more information.\n`);
    return 2;
  }
}

/** Service managers run services in the foreground; -p shows that one expects a daemon. */
function staysInForeground(given: ServerArguments, environment: Environment): boolean {
  if (given.foreground) return true;
  return !given.pidFileGiven && startedByServiceManager(environment, process.pid);
}

function logOf(given: ServerArguments, options: RunServerOptions): ServerLog {
  const { stdout, dialect = 'original', terminal = false } = options;
  if (dialect === 'original') return plainLog(stdout, given.verbose);
  return structuredLog(stdout, { pretty: terminal && !given.json, verbose: given.verbose });
}
