import {
  type Environment,
  isStored,
  openDescriptorStore,
  passedDescriptors,
  raiseOpenFilesLimit,
  serviceNotifier,
} from '@ivshmem/linux/process';
import { HttpService } from '@ivshmem/monitor/http';
import type { ListenAddress } from '@ivshmem/monitor/listen-address';
import { DescriptorBudget } from '../server/descriptor-budget.ts';
import { reasonOf } from '../server/remedies.ts';
import type { LinkConfiguration } from './configuration.ts';
import { openControl } from './control.ts';
import { LinkSet, type ReloadResult } from './link-set.ts';
import type { ServerLog } from './log.ts';
import { createMetrics } from './metrics.ts';
import { writePidFile } from './pid-file.ts';
import { ActivatedSockets } from './service-manager.ts';

/** Interval for retrying failed links, in ms. */
const RETRY = 10_000;

export interface ServeOptions {
  /** The first configuration, given the paths of the sockets passed by a service manager. */
  readonly links: (activated: readonly string[]) => readonly LinkConfiguration[];
  /** Reads the configuration again, at SIGHUP; without it, SIGHUP stops the process. Throws if it is invalid. */
  readonly reread?: (() => readonly LinkConfiguration[]) | undefined;
  /** Whether the process gets a control socket. */
  readonly control: boolean;
  readonly metrics?: ListenAddress | null;
  readonly log: ServerLog;
  /** Stops the servers, like SIGTERM. */
  readonly signal?: AbortSignal | undefined;
  /** File for the process ID. */
  readonly pidFile?: string | undefined;
  /** Called when clients can connect and the PID file is written, with the failed links and metrics. */
  readonly ready?: ((problems: readonly string[]) => void) | undefined;
  /** Variables set by a service manager. Default: `process.env`. */
  readonly environment?: Environment;
}

/**
 * Runs host servers until SIGINT or SIGTERM, then cleans up. Raises the soft limit of open files to the hard limit. Links or
 * metrics that cannot be started are logged and retried. Rejects if no link can be started or the PID file cannot be
 * written, and leaves nothing behind.
 */
export async function serve(options: ServeOptions): Promise<void> {
  const { log, signal, reread, environment = process.env } = options;
  let stop = () => {};
  const stopped = new Promise<void>((resolve) => {
    stop = resolve;
  });
  let reload = reread === undefined ? stop : () => {};
  const onHangUp = () => reload();
  // A signal must not end the process from here on without cleaning up.
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  process.on('SIGHUP', onHangUp);
  signal?.addEventListener('abort', stop);
  const cleanups: (() => void | Promise<void>)[] = [];
  try {
    raiseOpenFilesLimit();
    const store = openDescriptorStore(environment, process.pid);
    const budget = DescriptorBudget.ofProcess(store === undefined ? 0 : storedDescriptors(environment));
    const activated = new ActivatedSockets(environment, process.pid);
    cleanups.push(() => activated.close());
    const configurations = options.links(activated.paths);
    checkActivated(activated, configurations);
    if (store !== undefined) checkStore(Number(environment.FDSTORE), configurations, log);
    const metrics = createMetrics(budget);
    const links = new LinkSet({
      budget,
      activated,
      store,
      log: (link, event) => log.event(link, event),
      watch: (link, server) => metrics.watch(link, server),
    });
    cleanups.push(() => links.close());
    startLinks(links, configurations, log);
    for (const path of links.discardLeft()) {
      const text = `${path} is not configured any more: its peers are disconnected`;
      log.note('warn', text, { type: 'link-discarded', socketPath: path });
    }
    const control = options.control ? openControl(links, log) : undefined;
    cleanups.push(() => control?.close());
    for (const { name, settings } of configurations) log.note('debug', `${name}: settings`, { settings });
    log.note('debug', `${budget.left} of ${budget.limit} descriptors left for peers`);
    const problems = () => [...links.failed].map(([name, { reason }]) => `${name}: ${reason}`);
    const service = options.metrics ? new HttpService(options.metrics, { metrics, problems }, log) : null;
    cleanups.push(() => service?.close());
    await service?.start();
    if (options.pidFile !== undefined) cleanups.push(writePidFile(options.pidFile));
    const notifier = serviceNotifier(environment.NOTIFY_SOCKET);
    const checkNotified = (problem: string | null) => {
      if (problem !== null) log.note('warn', `cannot notify the service manager: ${problem}`);
    };
    const status = () => `${links.links.length} link${links.links.length === 1 ? '' : 's'}`;
    if (reread !== undefined) {
      reload = () => {
        checkNotified(notifier.reloading());
        reloadLinks(links, reread, log);
        checkNotified(notifier.ready(status()));
      };
    }
    // This timer also keeps the process running while there are no links.
    const retry = setInterval(() => {
      if (retryLinks(links, log)) checkNotified(notifier.ready(status()));
    }, RETRY);
    cleanups.push(() => clearInterval(retry));
    const { problem: noMetrics } = service ?? { problem: null };
    options.ready?.(noMetrics === null ? problems() : [...problems(), noMetrics]);
    checkNotified(notifier.ready(status()));
    if (!signal?.aborted) await stopped;
    reload = () => {};
    checkNotified(notifier.stopping());
  } finally {
    for (const cleanup of cleanups.reverse()) await cleanup();
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
    process.off('SIGHUP', onHangUp);
    signal?.removeEventListener('abort', stop);
  }
}

/** How many descriptors an earlier process has left. */
function storedDescriptors(environment: Environment): number {
  return passedDescriptors(environment, process.pid).filter(({ name }) => isStored(name)).length;
}

/** Warns if the service manager keeps fewer descriptors than the links can have. Those of the last peers are not kept then. */
function checkStore(limit: number, links: readonly LinkConfiguration[], log: ServerLog): void {
  const needed = links.reduce(
    (sum, { settings: { maxPeers, vectors } }) => sum + 5 + maxPeers * (1 + vectors),
    0,
  );
  if (needed <= limit) return;
  const remedy = 'raise FileDescriptorStoreMax= and FDSTORE, or allow fewer peers';
  log.note(
    'warn',
    `a restart may disconnect peers: they can have ${needed} descriptors, FDSTORE is ${limit}: ${remedy}`,
  );
}

/** Rejects a passed socket that no link uses: its clients would wait forever. */
function checkActivated(activated: ActivatedSockets, links: readonly LinkConfiguration[]): void {
  const served = new Set(links.map(({ settings }) => settings.socketPath));
  const stray = activated.paths.find((path) => !served.has(path));
  if (stray === undefined) return;
  throw new Error(`LISTEN_FDS: no link uses the socket ${stray}: give it with -S or in the configuration`);
}

/** Throws the first reason if no link can be started. */
function startLinks(links: LinkSet, configurations: readonly LinkConfiguration[], log: ServerLog): void {
  const { failed } = links.reload(configurations);
  const [first] = failed.values();
  if (first !== undefined && links.links.length === 0) {
    const { reason } = first;
    throw new Error(failed.size === 1 ? reason : `none of ${failed.size} links could be started: ${reason}`);
  }
  reportFailed(failed, log);
  reportEmpty(configurations, log);
}

/** Retries failed links and logs the ones started and changed reasons. Returns whether any was started. */
function retryLinks(links: LinkSet, log: ServerLog): boolean {
  const before = links.failed;
  if (before.size === 0) return false;
  const { added, failed } = links.retry();
  for (const link of added) log.note('info', `${link} started after retries`, { type: 'link-started', link });
  reportFailed(new Map([...failed].filter(([link, { reason }]) => before.get(link)?.reason !== reason)), log);
  return added.length > 0;
}

function reportFailed(failed: ReloadResult['failed'], log: ServerLog): void {
  for (const [link, { reason }] of failed) {
    const text = `${link} cannot be started, retrying every ${RETRY / 1000} s: ${reason}`;
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
    log.note('error', `configuration not reloaded, all links continue: ${reason}`, {
      type: 'reload-failed',
    });
    return;
  }
  const { added, removed, changed, kept, failed } = links.reload(configurations);
  reportFailed(failed, log);
  reportEmpty(configurations, log);
  const counts = `${added.length} added, ${removed.length} removed, ${changed.length} changed, ${kept.length} kept`;
  log.note('info', `configuration reloaded: ${counts}, ${failed.size} failed`, {
    type: 'reloaded',
    added,
    removed,
    changed,
    kept,
    failed: [...failed.keys()],
  });
}
