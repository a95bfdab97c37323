import { parseServerArguments } from './arguments.ts';
import { serve } from './serve.ts';

/** What a daemon tells the process that started it, once. */
export type DaemonReport = { readonly listening: true } | { readonly failure: string };

/**
 * The daemon's process: detached from the one that started it, which waits for the report of how the start went.
 * This file is a program, see {@link ./start-daemon.ts}.
 */
async function main(): Promise<void> {
  const { settings, pidFile } = parseServerArguments(process.argv.slice(2));
  const report = (message: DaemonReport) => {
    // The starter may be gone already, which is no reason to give up.
    if (process.connected) process.send?.(message, () => process.connected && process.disconnect());
  };
  try {
    await serve(settings, { pidFile, ready: () => report({ listening: true }) });
  } catch (error) {
    report({ failure: error instanceof Error ? error.message : String(error) });
    process.exitCode = 1;
  }
}

await main();
