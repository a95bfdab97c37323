import type { Poller } from '../wait/epoll.ts';
import { Timer } from '../wait/timer.ts';

/**
 * Reports of a kind that may come at once, more than any ordinary restart takes, and ms for each one after that: a peer
 * that restarts every second is still seen in each of its states.
 */
const BURST = 32;
const INTERVAL = 50;
/** Time after which what has been withheld is posted, in ms. */
const DELAY = 1000;

/** A line of text, as a thread reports it. */
export interface LogReport {
  readonly type: 'log';
  readonly text: string;
}

/** Something that may happen so often: up to a burst, then once an interval. */
class Allowance {
  #left = BURST;
  #since: number;

  constructor(now: number) {
    this.#since = now;
  }

  take(now: number): boolean {
    const earned = Math.floor((now - this.#since) / INTERVAL);
    this.#left = Math.min(BURST, this.#left + earned);
    this.#since = this.#left === BURST ? now : this.#since + earned * INTERVAL;
    if (this.#left === 0) return false;
    this.#left--;
    return true;
  }
}

/**
 * What a thread reports to the main thread. Peers, VMMs and servers can make things happen as fast as they like; this keeps
 * their number small. Of states only the latest counts, so the others are left out; lines of a log are counted, and the
 * last one is shown with their number.
 */
export class Reports<Message extends { readonly type: string }> {
  readonly #post: (message: Message | LogReport) => void;
  readonly #now: () => number;
  readonly #timer: Timer;
  readonly #allowances = new Map<string, Allowance>();
  readonly #withheld = new Map<string, Message>();
  #line = '';
  #lines = 0;
  #timed = false;

  /** `now` is a clock in ms. Throws SystemCallError. */
  constructor(
    poller: Poller,
    post: (message: Message | LogReport) => void,
    now: () => number = () => performance.now(),
  ) {
    this.#post = post;
    this.#now = now;
    this.#timer = new Timer(poller, () => this.flush());
  }

  /** A message that replaces those of the same type: a state. Posted at once, or the latest of them within a second. */
  latest(message: Message): void {
    if (!this.#withheld.has(message.type) && this.#mayPost(message.type)) {
      this.#post(message);
      return;
    }
    this.#withheld.set(message.type, message);
    this.#setTimer();
  }

  /** A line of text. */
  log(text: string): void {
    if (this.#lines === 0 && this.#mayPost('log')) {
      this.#post({ type: 'log', text });
      return;
    }
    this.#line = text;
    this.#lines++;
    this.#setTimer();
  }

  #mayPost(type: string): boolean {
    let allowance = this.#allowances.get(type);
    if (allowance === undefined) {
      allowance = new Allowance(this.#now());
      this.#allowances.set(type, allowance);
    }
    return allowance.take(this.#now());
  }

  #setTimer(): void {
    if (!this.#timed) this.#timer.after(DELAY);
    this.#timed = true;
  }

  /** Posts what has been withheld and may be posted now; called by the timer. */
  flush(): void {
    this.#timed = false;
    for (const [type, message] of this.#withheld) {
      if (!this.#mayPost(type)) continue;
      this.#withheld.delete(type);
      this.#post(message);
    }
    if (this.#lines > 0 && this.#mayPost('log')) this.#postLine();
    if (this.#withheld.size > 0 || this.#lines > 0) this.#setTimer();
  }

  #postLine(): void {
    const before = this.#lines - 1;
    const text = before === 0 ? this.#line : `${this.#line} (${before} lines before this one were left out)`;
    this.#lines = 0;
    this.#post({ type: 'log', text });
  }

  /** Posts what has been withheld, and ends. */
  close(): void {
    this.#timer.close();
    for (const message of this.#withheld.values()) this.#post(message);
    this.#withheld.clear();
    if (this.#lines > 0) this.#postLine();
  }
}
