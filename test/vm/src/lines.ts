/** A line of output, parsed if it is a JSON object. */
// biome-ignore lint/suspicious/noExplicitAny: the caller checks for the properties that it expects.
export type Line = any;

/** How long to wait for a line that must come, in ms. Guests without KVM are slow. */
const PATIENCE = 60_000;

/** What something prints, line by line, and the means to wait for a line. */
export class Lines {
  readonly all: Line[] = [];
  readonly #source: string;
  readonly #watchers = new Set<() => void>();
  #end: string | undefined;

  /** `source` says in error messages whose lines these are. */
  constructor(source: string) {
    this.#source = source;
  }

  /** Appends a line. */
  push(text: string): void {
    this.all.push(parsed(text));
    for (const look of [...this.#watchers]) look();
  }

  /** No further line comes, for a reason. */
  end(reason: string): void {
    if (this.#end !== undefined) return;
    this.#end = reason;
    for (const look of [...this.#watchers]) look();
  }

  /** All lines so far, as they were printed but for the spelling of JSON. */
  get text(): string {
    return this.all.map((line) => `${typeof line === 'string' ? line : JSON.stringify(line)}\n`).join('');
  }

  /**
   * Resolves with the first line from number `from` on that `matches`. Rejects if none came in `patience` ms, or none can
   * come any more, with an Error that names `what` was waited for and has all lines as its cause.
   */
  wait(what: string, matches: (line: Line) => boolean, from = 0, patience = PATIENCE): Promise<Line> {
    return new Promise((resolve, reject) => {
      let next = from;
      const finish = () => {
        clearTimeout(timer);
        this.#watchers.delete(look);
      };
      const fail = (why: string) => {
        finish();
        const last = this.text.trimEnd().split('\n').at(-1);
        const message = `${this.#source}: no ${what}: ${why}${last ? `; its last line is: ${last}` : ''}`;
        reject(new Error(message, { cause: this.text }));
      };
      const look = () => {
        for (; next < this.all.length; next++) {
          if (!matches(this.all[next])) continue;
          finish();
          return resolve(this.all[next]);
        }
        if (this.#end !== undefined) fail(this.#end);
      };
      const timer = setTimeout(() => fail(`waited for ${patience / 1000} s`), patience);
      this.#watchers.add(look);
      look();
    });
  }
}

function parsed(text: string): Line {
  if (!text.startsWith('{')) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
