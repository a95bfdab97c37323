import { type HttpListener, type HttpPages, listenHttp } from './http-listener.ts';
import { type ListenAddress, listenAddressText } from './listen-address.ts';

/** Interval for retries, in ms. */
const RETRY = 10_000;

/** Where an {@link HttpService} logs. `fields` are for structured logs. */
export interface ServiceLog {
  note(level: 'info' | 'error', text: string, fields: object): void;
}

/** Serves metrics without failing the process: if it cannot listen, that is logged and retried every 10 s. */
export class HttpService {
  readonly #address: ListenAddress;
  readonly #pages: HttpPages;
  readonly #log: ServiceLog;
  /** Null before the first attempt and after a failed one. */
  #listener: Promise<HttpListener | null> | null = null;
  #problem: string | null = null;
  #retry: NodeJS.Timeout | undefined;
  #open = true;

  constructor(address: ListenAddress, pages: HttpPages, log: ServiceLog) {
    this.#address = address;
    this.#pages = pages;
    this.#log = log;
  }

  /** Why metrics are not served; null if they are. */
  get problem(): string | null {
    return this.#problem;
  }

  /** Starts listening. Resolves when that has succeeded or failed for the first time. */
  async start(): Promise<void> {
    this.#listener = this.#listen();
    if ((await this.#listener) !== null || !this.#open) return;
    this.#retry = setTimeout(() => this.start(), RETRY);
  }

  async #listen(): Promise<HttpListener | null> {
    try {
      const listener = await listenHttp(this.#address, this.#pages);
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
    this.#open = false;
    clearTimeout(this.#retry);
    await (await this.#listener)?.close();
  }
}
