import { readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { raiseOpenFilesLimit, serviceNotifier } from '@ivshmem/linux';
import type { LinkConfiguration } from './configuration.ts';
import { DescriptorBudget } from './descriptor-budget.ts';
import { LinkSet } from './link-set.ts';
import { type ListenAddress, listenAddressText } from './listen-address.ts';
import type { ServerLog } from './log.ts';
import { createMetrics } from './metrics.ts';
import { listenMetrics, type MetricsListener } from './metrics-listener.ts';
import { ActivatedSockets, type Environment } from './service-manager.ts';

export interface ServeOptions {
  /** The links to start with, given the paths of the sockets that a service manager has passed. */
  readonly links: (activated: readonly string[]) => readonly LinkConfiguration[];
  /** Reads the configuration again, at SIGHUP; without it, SIGHUP ends the process. Throws where it is no good. */
  readonly reread?: (() => readonly LinkConfiguration[]) | undefined;
  /** Whether each server gets a control socket. */
  readonly control: boolean;
  readonly metrics?: ListenAddress | null;
  readonly log: ServerLog;
  /** Ends the servers, like a signal. */
  readonly signal?: AbortSignal | undefined;
  /** Where to write the process ID. */
  readonly pidFile?: string | undefined;
  /** Called when clients can connect, and the process ID is written. */
  readonly ready?: (() => void) | undefined;
  /** Where a service manager says what it wants. Default: `process.env`. */
  readonly environment?: Environment;
}

/**
 * Runs host servers until SIGINT or SIGTERM, and removes all traces of them. Raises the limit of open files to what is
 * allowed. Rejects with what a server, the metrics or the PID file could not be had for; nothing is left then.
 */
export async function serve(options: ServeOptions): Promise<void> {
  const { log, signal, reread, environment = process.env } = options;
  let stop = () => {};
  const stopped = new Promise<void>((resolve) => {
    stop = resolve;
  });
  let reload = reread === undefined ? stop : () => {};
  const onHangUp = () => reload();
  // Before there is anything to clean up.
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  process.on('SIGHUP', onHangUp);
  signal?.addEventListener('abort', stop);
  const cleanups: (() => void | Promise<void>)[] = [];
  try {
    raiseOpenFilesLimit();
    const budget = DescriptorBudget.ofProcess();
    const activated = new ActivatedSockets(environment, process.pid);
    cleanups.push(() => activated.close());
    const configurations = options.links(activated.paths);
    checkActivated(activated, configurations);
    const metrics = createMetrics(budget);
    const links = new LinkSet({
      budget,
      activated,
      control: options.control,
      log: (link, event) => log.event(link, event),
      watch: (link, server) => metrics.watch(link, server),
    });
    cleanups.push(() => links.close());
    links.start(configurations);
    for (const { name, settings } of configurations) log.note('debug', `${name}: settings`, { settings });
    log.note('debug', `${budget.left} of ${budget.limit} descriptors are left for peers`);
    if (options.metrics) {
      const problems = () => [...links.failed].map(([name, reason]) => `${name}: ${reason}`);
      const listener = await listenMetrics(options.metrics, { metrics, problems });
      cleanups.push(() => listener.close());
      reportMetrics(log, listener);
    }
    const { pidFile } = options;
    if (pidFile !== undefined) {
      writeFileSync(pidFile, `${process.pid}\n`);
      cleanups.push(() => removePidFile(pidFile));
    }
    const notifier = serviceNotifier(environment.NOTIFY_SOCKET);
    const tell = (problem: string | null) => {
      if (problem !== null) log.note('warn', `the service manager cannot be notified: ${problem}`);
    };
    const status = () => `${links.links.length} link${links.links.length === 1 ? '' : 's'}`;
    if (reread !== undefined) {
      reload = () => {
        tell(notifier.reloading());
        reloadLinks(links, reread, log);
        tell(notifier.ready(status()));
      };
    }
    options.ready?.();
    tell(notifier.ready(status()));
    if (!signal?.aborted) await stopped;
    reload = () => {};
    tell(notifier.stopping());
  } finally {
    for (const cleanup of cleanups.reverse()) await cleanup();
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
    process.off('SIGHUP', onHangUp);
    signal?.removeEventListener('abort', stop);
  }
}

/** A socket that a service manager listens at, and nobody serves, would leave its clients waiting for ever. */
function checkActivated(activated: ActivatedSockets, links: readonly LinkConfiguration[]): void {
  const served = new Set(links.map(({ settings }) => settings.socketPath));
  const stray = activated.paths.find((path) => !served.has(path));
  if (stray === undefined) return;
  throw new Error(`LISTEN_FDS: no link has the socket ${stray}: name it by -S or in the configuration`);
}

function reportMetrics(log: ServerLog, { address }: MetricsListener): void {
  const url = `http://${listenAddressText(address)}/metrics`;
  log.note('info', `metrics at ${url}`, { type: 'metrics', url });
}

function reloadLinks(links: LinkSet, reread: () => readonly LinkConfiguration[], log: ServerLog): void {
  let configurations: readonly LinkConfiguration[];
  try {
    configurations = reread();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    log.note('error', `configuration not read again, all links go on as they are: ${reason}`, {
      type: 'reload-failed',
    });
    return;
  }
  const { added, removed, changed, kept, failed } = links.reload(configurations);
  for (const [link, reason] of failed) {
    log.note('error', `${link} could not be started: ${reason}`, { type: 'link-failed', link });
  }
  const counts = `${added.length} added, ${removed.length} removed, ${changed.length} changed, ${kept.length} kept`;
  log.note('info', `configuration read again: ${counts}, ${failed.size} failed`, {
    type: 'reloaded',
    added,
    removed,
    changed,
    kept,
    failed: [...failed.keys()],
  });
}

/** Unless a successor has written its own there. */
function removePidFile(path: string): void {
  try {
    if (Number(readFileSync(path, 'utf8')) === process.pid) unlinkSync(path);
  } catch {
    // It is gone, or never was.
  }
}
