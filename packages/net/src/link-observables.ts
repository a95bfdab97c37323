import { State } from '@ivshmem/transport/protocol';
import { BehaviorSubject, interval, map, type Observable, Subject, startWith, takeUntil } from 'rxjs';
import { type LinkStats, readCounters } from './counters.ts';
import type { EthernetInfo, LinkStatus, WorkerMessage } from './link-messages.ts';

// The only use of rxjs at run time. It is imported when a link is created: rxjs takes longer to load than all else here.

/** Turns the messages of a link into the observables of its handle. */
export class LinkObservables<Info extends EthernetInfo> {
  readonly #state = new BehaviorSubject<LinkStatus>({
    local: State.RESET,
    peer: State.RESET,
    carrier: false,
    offloads: [],
  });
  readonly #lines = new Subject<string>();
  readonly #log: (text: string) => void;
  #info: BehaviorSubject<Info> | undefined;

  /** `log` is called with the lines logged before the link is open. */
  constructor(log: (text: string) => void) {
    this.#log = log;
  }

  receive(message: WorkerMessage<Info>): void {
    switch (message.type) {
      case 'up':
        if (this.#info === undefined) this.#info = new BehaviorSubject(message.info);
        else this.#info.next(message.info);
        break;
      case 'state':
        if (!isSame(message.status, this.#state.value)) this.#state.next(message.status);
        break;
      case 'log':
        if (this.#info === undefined) this.#log(message.text);
        else this.#lines.next(message.text);
        break;
    }
  }

  /** This getter and the next: only after the first message 'up'. */
  get info(): Info {
    return this.#info!.value;
  }

  get info$(): Observable<Info> {
    return this.#info!.asObservable();
  }

  get state$(): Observable<LinkStatus> {
    return this.#state.asObservable();
  }

  get log$(): Observable<string> {
    return this.#lines.asObservable();
  }

  /** For each subscriber, the current counters first, then once a second, until the link is closed. */
  stats$(counters: SharedArrayBuffer, closed: Promise<unknown>): Observable<LinkStats> {
    return interval(1000).pipe(
      startWith(0),
      map(() => readCounters(counters)),
      takeUntil(closed),
    );
  }

  /** The link has ended. */
  complete(): void {
    for (const subject of [this.#info, this.#state, this.#lines]) subject?.complete();
  }
}

/** A link that moves to another port begins in the state in which it ended on the previous one. */
function isSame(a: LinkStatus, b: LinkStatus): boolean {
  const offloads = a.offloads.join() === b.offloads.join();
  return a.local === b.local && a.peer === b.peer && a.carrier === b.carrier && offloads;
}
