import type { Poller } from '../wait/epoll.ts';
import { Timer } from '../wait/timer.ts';

/**
 * Maximum burst of reports of one kind, more than an ordinary restart needs, and the interval for further ones, in ms.
 * With these, every state of a peer that restarts every second is reported.
 */
const BURST = 32;
const INTERVAL = 50;
/** Time until withheld reports are posted, in ms. */
const DELAY = 1000;

/** A line of a thread's log. */
export interface LogReport {
  readonly type: 'log';
  readonly text: string;
}

/** A rate limit: a burst, then one event per interval. */
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
 * Limits the rate of a thread's reports to the main thread, since peers, VMMs and servers can cause events at any rate. Of
 * several withheld states, only the latest is posted; of several withheld log lines, the last one with their number.
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

  /** Reports a state, which replaces withheld ones of the same type. Posted at once, or within a second. */
  latest(message: Message): void {
    if (!this.#withheld.has(message.type) && this.#mayPost(message.type)) {
      this.#post(message);
      return;
    }
    this.#withheld.set(message.type, message);
    this.#setTimer();
  }

  /** Reports a line of text. */
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

  /** Posts the withheld reports that the limit now allows; called by the timer. */
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

  /** Posts all withheld reports and stops the timer. */
  close(): void {
    this.#timer.close();
    for (const message of this.#withheld.values()) this.#post(message);
    this.#withheld.clear();
    if (this.#lines > 0) this.#postLine();
  }
}
