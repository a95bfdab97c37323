import { startBlockingThread } from '@ivshmem/linux/thread';
import { State } from '@ivshmem/transport/protocol';
import { BehaviorSubject, interval, map, type Observable, Subject, startWith, takeUntil } from 'rxjs';
import { allocateCounters, type LinkStats, readCounters } from './counters.ts';
import type { LinkInfo, LinkStatus, WorkerInput, WorkerMessage } from './link-messages.ts';
import { checkLinkOptions, type LinkOptions } from './link-options.ts';

/** An Ethernet link between an ivshmem v2 port and a TAP interface. */
export interface Link {
  /** What the link is; changes when it moves to another port, and with its MTU. */
  readonly info: LinkInfo;
  /** The same, at once and after each change. Completes when the link ends. */
  readonly info$: Observable<LinkInfo>;
  /** Handshake and offloads: the current state first, then every change. Completes when the link ends. */
  readonly state$: Observable<LinkStatus>;
  /** The counters, now and then every second. */
  readonly stats$: Observable<LinkStats>;
  /** One line for each thing worth knowing: a violation of the protocol, a server that went. */
  readonly log$: Observable<string>;
  /** The counters now. */
  stats(): LinkStats;
  /** Resolves when the link has ended; to an Error where it ended by itself. */
  readonly closed: Promise<Error | null>;
  /** Ends the link: the peer is told, the interface goes unless it is persistent. Resolves when all is given back. */
  close(): Promise<void>;
}

/**
 * Makes a link: opens the port, makes and configures the TAP interface, and runs the handshake and the data path in a
 * worker thread. Resolves when the interface is there; the peer may come later. Rejects, with an Error of one line
 * and nothing left behind, where an option can't be right (RangeError), the port can't be opened, or the interface
 * can't be made. An aborted `signal` gives up the wait for the port, and rejects with its reason; later it has no effect.
 * `log` is called with the lines that come before the link is there, such as what `options.wait` waits for.
 */
export async function createLink(
  options: LinkOptions,
  signal?: AbortSignal,
  log: (text: string) => void = () => {},
): Promise<Link> {
  checkLinkOptions(options);
  const counters = allocateCounters();
  const input: WorkerInput = { options, counters };
  const status = new BehaviorSubject<LinkStatus>({
    local: State.RESET,
    peer: State.RESET,
    carrier: false,
    offloads: [],
  });
  const lines = new Subject<string>();
  let info: BehaviorSubject<LinkInfo> | undefined;
  const thread = await startBlockingThread<WorkerMessage>({
    // The same file from src (under a test runner) and from dist.
    file: new URL('../dist/link-worker.js', import.meta.url),
    input,
    upWith: 'up',
    receive(message) {
      switch (message.type) {
        case 'up':
          if (info === undefined) info = new BehaviorSubject(message.info);
          else info.next(message.info);
          break;
        case 'state':
          if (!isSame(message.status, status.value)) status.next(message.status);
          break;
        case 'log':
          if (info === undefined) log(message.text);
          else lines.next(message.text);
          break;
      }
    },
    signal,
  });
  const moves = info!;
  const closed = thread.ended.then((failure) => {
    for (const subject of [moves, status, lines]) subject.complete();
    return failure;
  });
  return {
    get info() {
      return moves.value;
    },
    info$: moves.asObservable(),
    state$: status.asObservable(),
    stats$: interval(1000).pipe(
      startWith(0),
      map(() => readCounters(counters)),
      takeUntil(closed),
    ),
    log$: lines.asObservable(),
    stats: () => readCounters(counters),
    closed,
    async close() {
      thread.stop();
      await closed;
    },
  };
}

/** A link that moves to another port begins where it ended on the one before. */
function isSame(a: LinkStatus, b: LinkStatus): boolean {
  const offloads = a.offloads.join() === b.offloads.join();
  return a.local === b.local && a.peer === b.peer && a.carrier === b.carrier && offloads;
}
