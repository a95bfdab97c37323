import { type ListenAddress, listenAddressText } from './listen-address.ts';
import type { ServerLog } from './log.ts';
import { listenMetrics, type MetricsListener, type MetricsPages } from './metrics-listener.ts';

/** Serves metrics without failing the process: if it cannot listen, that is logged and {@link start} can be retried. */
export class MetricsService {
  readonly #address: ListenAddress;
  readonly #pages: MetricsPages;
  readonly #log: ServerLog;
  /** Null before the first attempt and after a failed one. */
  #listener: Promise<MetricsListener | null> | null = null;
  #problem: string | null = null;

  constructor(address: ListenAddress, pages: MetricsPages, log: ServerLog) {
    this.#address = address;
    this.#pages = pages;
    this.#log = log;
  }

  /** Why metrics are not served; null if they are. */
  get problem(): string | null {
    return this.#problem;
  }

  /** Starts listening, unless it already does. Resolves when that has succeeded or failed. */
  async start(): Promise<void> {
    this.#listener ??= this.#listen();
    if ((await this.#listener) === null) this.#listener = null;
  }

  async #listen(): Promise<MetricsListener | null> {
    try {
      const listener = await listenMetrics(this.#address, this.#pages);
      const url = `http://${listenAddressText(listener.address)}/metrics`;
      this.#log.note('info', `metrics at ${url}`, { type: 'metrics', url });
      this.#problem = null;
      return listener;
    } catch (error) {
      const problem = `no metrics: ${(error as Error).message}`;
      if (problem !== this.#problem) this.#log.note('error', problem, { type: 'metrics-failed' });
      this.#problem = problem;
      return null;
    }
  }

  async close(): Promise<void> {
    await (await this.#listener)?.close();
  }
}
