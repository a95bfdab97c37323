import type { Dump } from './bytes.ts';

/** How strict a requirement is, in the sense of RFC 2119. Only a failed MUST makes a run fail. */
export type Level = 'MUST' | 'SHOULD';

/** One requirement on a subject, and how to find out whether the subject meets it. */
export interface Check<Context> {
  /** Subject, group and name: `peer.handshake.ready-after-init`. */
  readonly id: string;
  /** What a correct subject does, in one sentence. */
  readonly sentence: string;
  /** What requires it: a page and its section. */
  readonly source: string;
  readonly level: Level;
  /** The kit itself violates the protocol in this check: the subject has to survive, and to behave correctly afterwards. */
  readonly hostile?: boolean;
  /** Resolves if the subject conforms. Throws {@link Failure}, or {@link Skip} if that cannot be found out here. */
  run(context: Context): Promise<void>;
}

/** What a subject does wrong. */
export class Failure extends Error {
  override readonly name = 'Failure';
  readonly expected: string;
  readonly came: string;
  /** The bytes in question. */
  readonly dumps: readonly Dump[];

  constructor(expected: string, came: string, dumps: readonly Dump[] = []) {
    super(`expected ${expected}; came ${came}`);
    this.expected = expected;
    this.came = came;
    this.dumps = dumps;
  }
}

/** A check does not apply, or is not possible with these options. */
export class Skip extends Error {
  override readonly name = 'Skip';
}

/** Throws {@link Failure} unless `actual` is `expected`. `what` names the value in the message. */
export function expectEqual<T>(what: string, actual: T, expected: T, dumps: readonly Dump[] = []): void {
  if (Object.is(actual, expected)) return;
  throw new Failure(`${what} ${String(expected)}`, String(actual), dumps);
}

/** Throws {@link Failure} unless `condition` holds. */
export function expectThat(
  condition: boolean,
  expected: string,
  came: string,
  dumps: readonly Dump[] = [],
): void {
  if (!condition) throw new Failure(expected, came, dumps);
}
