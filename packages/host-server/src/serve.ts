import { readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import type { ServerArguments } from './arguments.ts';
import type { HostServerEvent } from './events.ts';
import { createHostServer } from './host-server.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export interface ServeOptions {
  /** Ends the server, like a signal. */
  readonly signal?: AbortSignal | undefined;
  /** Where to write the process ID. */
  readonly pidFile?: string | undefined;
  readonly log?: ((event: HostServerEvent) => void) | undefined;
  /** Called when clients can connect, and the process ID is written. */
  readonly ready?: (() => void) | undefined;
}

/**
 * Runs a host server until SIGINT, SIGTERM or SIGHUP, and removes all traces of it. Rejects with what the server or
 * the PID file could not be had for.
 */
export async function serve(settings: ServerArguments['settings'], options: ServeOptions): Promise<void> {
  const { signal, pidFile, log } = options;
  let stop = () => {};
  const stopped = new Promise<void>((resolve) => {
    stop = resolve;
  });
  // Before there is anything to clean up.
  for (const name of SIGNALS) process.on(name, stop);
  signal?.addEventListener('abort', stop);
  try {
    const server = createHostServer(log === undefined ? settings : { ...settings, log });
    try {
      if (pidFile !== undefined) writeFileSync(pidFile, `${process.pid}\n`);
      options.ready?.();
      if (!signal?.aborted) await stopped;
    } finally {
      server.close();
      if (pidFile !== undefined) removePidFile(pidFile);
    }
  } finally {
    for (const name of SIGNALS) process.off(name, stop);
    signal?.removeEventListener('abort', stop);
  }
}

/** Unless a successor has written its own there. */
function removePidFile(path: string): void {
  try {
    if (Number(readFileSync(path, 'utf8')) === process.pid) unlinkSync(path);
  } catch {
    // It is gone, or never was.
  }
}
