import { raiseOpenFilesLimit, serviceNotifier } from '@ivshmem/linux/process';
import { DescriptorBudget } from '../server/descriptor-budget.ts';
import { reasonOf } from '../server/remedies.ts';
import type { LinkConfiguration } from './configuration.ts';
import { LinkSet, type ReloadResult } from './link-set.ts';
import type { ListenAddress } from './listen-address.ts';
import type { ServerLog } from './log.ts';
import { createMetrics } from './metrics.ts';
import { MetricsService } from './metrics-service.ts';
import { writePidFile } from './pid-file.ts';
import { ActivatedSockets, type Environment } from './service-manager.ts';

/** How often to try again what could not be started, in ms. */
const RETRY = 10_000;

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
  /** Called when clients can connect, and the process ID is written, with what does not work nevertheless. */
  readonly ready?: ((problems: readonly string[]) => void) | undefined;
  /** Where a service manager says what it wants. Default: `process.env`. */
  readonly environment?: Environment;
}

/**
 * Runs host servers until SIGINT or SIGTERM, and removes all traces of them. Raises the limit of open files to what is
 * allowed. A link, or metrics, that cannot be started is logged and tried again later, if any link runs. Rejects with the
 * reason if none runs, or the PID file cannot be written; nothing is left then.
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
    startLinks(links, configurations, log);
    for (const { name, settings } of configurations) log.note('debug', `${name}: settings`, { settings });
    log.note('debug', `${budget.left} of ${budget.limit} descriptors are left for peers`);
    const problems = () => [...links.failed].map(([name, reason]) => `${name}: ${reason}`);
    const service = options.metrics ? new MetricsService(options.metrics, { metrics, problems }, log) : null;
    cleanups.push(() => service?.close());
    await service?.start();
    if (options.pidFile !== undefined) cleanups.push(writePidFile(options.pidFile));
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
    // Keeps the process running, too, while there is no link.
    const retry = setInterval(() => {
      service?.start();
      if (retryLinks(links, log)) tell(notifier.ready(status()));
    }, RETRY);
    cleanups.push(() => clearInterval(retry));
    const { problem: noMetrics } = service ?? { problem: null };
    options.ready?.(noMetrics === null ? problems() : [...problems(), noMetrics]);
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

/** Throws the first reason if none of them can be started. */
function startLinks(links: LinkSet, configurations: readonly LinkConfiguration[], log: ServerLog): void {
  const { failed } = links.reload(configurations);
  const [first] = failed.values();
  if (first !== undefined && links.links.length === 0) {
    throw new Error(failed.size === 1 ? first : `none of ${failed.size} links could be started: ${first}`);
  }
  reportFailed(failed, log);
  reportEmpty(configurations, log);
}

/** Returns whether a link that could not be started runs now. Logs that, and reasons that have changed. */
function retryLinks(links: LinkSet, log: ServerLog): boolean {
  const before = links.failed;
  if (before.size === 0) return false;
  const { added, failed } = links.retry();
  for (const link of added) log.note('info', `${link} could be started now`, { type: 'link-started', link });
  reportFailed(new Map([...failed].filter(([link, reason]) => before.get(link) !== reason)), log);
  return added.length > 0;
}

function reportFailed(failed: ReloadResult['failed'], log: ServerLog): void {
  for (const [link, reason] of failed) {
    const text = `${link} could not be started, and is tried again every ${RETRY / 1000} s: ${reason}`;
    log.note('error', text, { type: 'link-failed', link });
  }
}

function reportEmpty(configurations: readonly LinkConfiguration[], log: ServerLog): void {
  if (configurations.length > 0) return;
  log.note('warn', 'the configuration has no links: add some and send SIGHUP', { type: 'no-links' });
}

function reloadLinks(links: LinkSet, reread: () => readonly LinkConfiguration[], log: ServerLog): void {
  let configurations: readonly LinkConfiguration[];
  try {
    configurations = reread();
  } catch (error) {
    const reason = reasonOf(error);
    log.note('error', `configuration not read again, all links go on as they are: ${reason}`, {
      type: 'reload-failed',
    });
    return;
  }
  const { added, removed, changed, kept, failed } = links.reload(configurations);
  reportFailed(failed, log);
  reportEmpty(configurations, log);
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
