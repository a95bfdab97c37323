import { serviceNotifier } from '@ivshmem/linux';

/**
 * What `systemctl status` shows of a command: the latest line of each of its parts, in the order in which they were
 * first heard of. Without a service manager (NOTIFY_SOCKET) nothing is sent.
 */
export class ServiceStatus {
  readonly #notifier = serviceNotifier(process.env.NOTIFY_SOCKET);
  readonly #lines = new Map<string, string>();
  #isFaulty = false;

  /** `part` is at `line` now. */
  set(part: string, line: string): void {
    if (this.#lines.get(part) === line) return;
    this.#lines.set(part, line);
    this.#check(this.#notifier.status(this.#text));
  }

  /** All parts have started: what waits for this service may start. */
  ready(): void {
    this.#check(this.#notifier.ready(this.#text));
  }

  stopping(): void {
    this.#check(this.#notifier.stopping());
  }

  get #text(): string {
    return [...this.#lines].map(([part, line]) => `${part}: ${line}`).join('; ');
  }

  /** A service manager that cannot be reached is reported once. */
  #check(problem: string | null): void {
    if (problem === null || this.#isFaulty) return;
    this.#isFaulty = true;
    process.stderr.write(`ivshmem: the service manager cannot be notified: ${problem}\n`);
  }
}
