import { LayoutError } from '@ivshmem/transport';
import { parseServerArguments, ServerArgumentError, serverUsage } from './arguments.ts';
import { eventText } from './events.ts';
import { completeSettings, HostServerOptionError } from './options.ts';
import { serve } from './serve.ts';
import { startDaemon } from './start-daemon.ts';

export interface RunServerOptions {
  readonly stdout: { write(text: string): unknown };
  readonly stderr: { write(text: string): unknown };
  /** As the user calls it. Default `ivshmem2-server`. */
  readonly program?: string;
  /** Print every event as one JSON object a line, with its time in ms, whatever -v says; in the foreground only. */
  readonly json?: boolean;
  /** Ends a server in the foreground, as SIGTERM does. */
  readonly signal?: AbortSignal;
}

/**
 * The host server as a command: `argv` without the program's name. Fulfilled with the exit status: 0 after a signal,
 * or when the daemon listens; 1 where the server cannot start, with one line on stderr; 2 for a command line that is
 * no good, where nothing has been touched.
 */
export async function runServer(argv: readonly string[], options: RunServerOptions): Promise<number> {
  const { stdout, stderr, program = 'ivshmem2-server', json = false, signal } = options;
  try {
    const { help, foreground, verbose, settings } = parseServerArguments(argv);
    if (help) {
      stdout.write(serverUsage(program));
      return 0;
    }
    if (json && !foreground) throw new ServerArgumentError('--json: a daemon has nowhere to log to: add -F');
    completeSettings(settings);
    if (!foreground) {
      await startDaemon(argv);
      return 0;
    }
    await serve(settings, {
      signal,
      log: (event) => {
        if (json) stdout.write(`${JSON.stringify({ time: Date.now(), ...event })}\n`);
        else if (verbose || event.type === 'listening') stdout.write(`${eventText(event)}\n`);
      },
    });
    return 0;
  } catch (error) {
    stderr.write(`${program}: ${error instanceof Error ? error.message : String(error)}\n`);
    const isUsage =
      error instanceof ServerArgumentError ||
      error instanceof HostServerOptionError ||
      error instanceof LayoutError;
    if (!isUsage) return 1;
    stderr.write(`Try '${program} -h' for more information.\n`);
    return 2;
  }
}
