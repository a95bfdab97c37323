/** As of rxjs. */
interface Subscribable<T> {
  subscribe(next: (value: T) => void): unknown;
}

/** What a part of a process offers to its observers: a link, a device. */
export interface WatchablePart<Info, State, Stats> {
  readonly info: Info;
  readonly state$: Subscribable<State>;
  readonly log$: Subscribable<string>;
  stats(): Stats;
}

/** What a part's report says about the part itself. */
export interface PartSnapshot<Info, State, Stats> {
  readonly info: Info;
  readonly state: State;
  /** ISO 8601. */
  readonly since: string;
  readonly stats: Stats;
  readonly log: { readonly time: string; readonly text: string } | null;
}

/**
 * Remembers since when a part has been in its state, and the last line of its log. Returns a function that takes a snapshot.
 * `state$` must emit the current state when it is subscribed to.
 */
export function watchPart<Info, State, Stats>(
  part: WatchablePart<Info, State, Stats>,
): () => PartSnapshot<Info, State, Stats> {
  const now = () => new Date().toISOString();
  let current: { state: State; since: string } | undefined;
  let log: { time: string; text: string } | null = null;
  part.state$.subscribe((state) => {
    current = { state, since: now() };
  });
  part.log$.subscribe((text) => {
    log = { time: now(), text };
  });
  return () => ({ info: part.info, ...current!, stats: part.stats(), log });
}
