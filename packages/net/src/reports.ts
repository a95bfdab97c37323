import { Reports } from '@ivshmem/linux/thread';
import type { LinkInfo, WorkerMessage } from './link-messages.ts';

/** Minimum interval between two log lines about violations of the protocol, in ms. */
const VIOLATION_INTERVAL = 10_000;

/** The reports of a link to the code that observes it. */
export class LinkReports<Info = LinkInfo> extends Reports<WorkerMessage<Info>> {
  #lastViolation = Number.NEGATIVE_INFINITY;
  #silentViolations = 0;

  /** Logs a violation and its consequence, at a limited rate. `now` is a time in ms. */
  violation(text: string, consequence: string, now = performance.now()): void {
    if (now - this.#lastViolation < VIOLATION_INTERVAL) {
      this.#silentViolations++;
      return;
    }
    const more =
      this.#silentViolations > 0 ? ` (and did ${this.#silentViolations} times since the last line)` : '';
    this.#lastViolation = now;
    this.#silentViolations = 0;
    this.log(`the peer violates the protocol: ${text}; ${consequence}${more}`);
  }
}
