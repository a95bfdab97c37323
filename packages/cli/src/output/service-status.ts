import { openOutput, printable, serviceNotifier } from '@ivshmem/linux/process';

/**
 * What `systemctl status` shows of a command: the state of each of its parts, in the order in which they started.
 * Without a service manager (NOTIFY_SOCKET) nothing is sent.
 */
export class ServiceStatus {
  readonly #notifier = serviceNotifier(process.env.NOTIFY_SOCKET);
  readonly #states = new Map<string, string>();
  #isReady = false;
  #isFaulty = false;

  /** An event of a part, in words. A log line counts as a state until the command is ready: it says why it is not yet. */
  report(part: string, event: string, lines: readonly string[]): void {
    if (event !== 'state' && (event !== 'log' || this.#isReady)) return;
    const text = lines.join(' ');
    if (this.#states.get(part) === text) return;
    this.#states.set(part, text);
    this.#check(this.#notifier.status(this.#text));
  }

  /** All parts have started: what waits for this service may start. */
  ready(): void {
    this.#isReady = true;
    this.#check(this.#notifier.ready(this.#text));
  }

  stopping(): void {
    this.#check(this.#notifier.stopping());
  }

  get #text(): string {
    return [...this.#states.values()].join('; ');
  }

  /** A service manager that cannot be reached is reported once. */
  #check(problem: string | null): void {
    if (problem === null || this.#isFaulty) return;
    this.#isFaulty = true;
    const stderr = openOutput(2);
    stderr.write(`${printable(`ivshmem: the service manager cannot be notified: ${problem}`)}\n`);
    void stderr.close();
  }
}
