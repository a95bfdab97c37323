import { preloadThread, startBlockingThread } from '@ivshmem/linux/thread';
import type { Observable } from 'rxjs';
import { allocateCounters, type LinkStats, readCounters } from './counters.ts';
import type { LinkInfo, LinkStatus, WorkerInput, WorkerMessage } from './link-messages.ts';
import { checkLinkOptions, type LinkOptions } from './link-options.ts';

/** An Ethernet link between an ivshmem v2 port and a TAP interface. */
export interface Link {
  /** The link's properties. They change when it moves to another port, and with its MTU. */
  readonly info: LinkInfo;
  /** The current properties first, then every change. Completes when the link ends. */
  readonly info$: Observable<LinkInfo>;
  /** Handshake and offloads: the current state first, then every change. Completes when the link ends. */
  readonly state$: Observable<LinkStatus>;
  /** The counters: the current ones first, then once a second. */
  readonly stats$: Observable<LinkStats>;
  /** One line for each noteworthy event: a violation of the protocol, the end of a server. */
  readonly log$: Observable<string>;
  /** The counters now. */
  stats(): LinkStats;
  /** Resolves when the link has ended: to null after {@link close}, to an Error of one line if it failed. */
  readonly closed: Promise<Error | null>;
  /**
   * Ends the link: the peer loses its carrier, and the interface is removed unless it is persistent. Resolves when
   * everything is released.
   */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** The same file from src (under a test runner) and from dist. */
const WORKER = new URL('../dist/link-worker.js', import.meta.url);

/** Loads what {@link createLink} needs, so that the first link is created faster. */
export async function preloadLink(): Promise<void> {
  preloadThread(WORKER);
  await import('./link-observables.ts');
}

/**
 * Creates a link: opens the port, creates and configures the TAP interface, and runs the handshake and the data path in a
 * worker thread. Resolves when the interface exists; the peer may connect later.
 *
 * Rejects with an Error of one line, having released everything, if an option is invalid or does not fit what the server
 * offers (OptionError), the port cannot be opened (SystemCallError, with code ENOENT or ECONNREFUSED if no server
 * listens), or the interface cannot be created. Aborting `signal` cancels the wait for the port and rejects with its
 * reason; later it has no effect. `log` is called with the lines logged before this resolves, such as what
 * `options.wait` waits for.
 */
export async function createLink(
  options: LinkOptions,
  signal?: AbortSignal,
  log: (text: string) => void = () => {},
): Promise<Link> {
  checkLinkOptions(options);
  const counters = allocateCounters();
  const { store, ...rest } = options;
  const input: WorkerInput = { options: rest, counters, store: store?.handOver() };
  const { LinkObservables } = await import('./link-observables.ts');
  const observables = new LinkObservables<LinkInfo>(log);
  const thread = await startBlockingThread<WorkerMessage>({
    file: WORKER,
    input,
    upWith: 'up',
    receive: (message) => observables.receive(message),
    ended: () => observables.complete(),
    signal,
  });
  return {
    ...thread,
    get info() {
      return observables.info;
    },
    info$: observables.info$,
    state$: observables.state$,
    stats$: observables.stats$(counters, thread.closed),
    log$: observables.log$,
    stats: () => readCounters(counters),
  };
}
