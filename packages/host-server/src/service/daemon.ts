import { reasonOf } from '../server/remedies.ts';
import { parseServerArguments } from './arguments.ts';
import type { ServerLog } from './log.ts';
import type { ServerDialect } from './option-table.ts';
import { planLinks } from './plan.ts';
import { serve } from './serve.ts';

/**
 * Sent once by a daemon to the process that started it: why it could not start, or problems despite which it runs.
 */
export type DaemonReport = { readonly problems: readonly string[] } | { readonly failure: string };

/** A daemon has no output. */
const silence: ServerLog = { event() {}, note() {} };

/** The daemon's program, started by `start-daemon.ts`, which waits for its {@link DaemonReport}. */
async function main(): Promise<void> {
  const [dialect, ...argv] = process.argv.slice(2);
  const report = (message: DaemonReport) => {
    // The daemon goes on if the process that started it has already exited.
    if (process.connected) process.send?.(message, () => process.connected && process.disconnect());
  };
  try {
    const given = parseServerArguments(argv, dialect as ServerDialect);
    await serve({
      ...planLinks(given, dialect as ServerDialect),
      control: dialect === 'extended',
      metrics: given.metrics,
      log: silence,
      pidFile: given.pidFile,
      ready: (problems) => report({ problems }),
      // The inherited environment is meant for the process that started the daemon.
      environment: {},
    });
  } catch (error) {
    report({ failure: reasonOf(error) });
    process.exitCode = 1;
  }
}

await main();
