import { readdirSync } from 'node:fs';
import { openFilesLimit } from '@ivshmem/linux/process';

/** Descriptors kept free for the log, metrics, peer lists and reloads of the configuration. */
const RESERVE = 64;

/** File descriptors left to a process, shared by all its servers. A peer takes one for its socket and one per vector. */
export class DescriptorBudget {
  /** RLIMIT_NOFILE at the time of construction. */
  readonly limit: number;
  #used: number;

  /** `limit` descriptors, of which `used` are already open. */
  constructor(limit: number, used: number) {
    this.limit = limit;
    this.#used = used + RESERVE;
  }

  /**
   * The budget of this process: its soft limit, less what is open now. `left`: so many of these are yet to be taken from the
   * budget, by servers that continue with them. Throws SystemCallError.
   */
  static ofProcess(left = 0): DescriptorBudget {
    return new DescriptorBudget(openFilesLimit().soft, readdirSync('/proc/self/fd').length - left);
  }

  /** Descriptors left; 0 also if more are taken than the limit allows. */
  get left(): number {
    return Math.max(0, this.limit - this.#used);
  }

  /** Takes `count` descriptors until {@link release}. Returns false, and takes none, if fewer are left. */
  take(count: number): boolean {
    if (count > this.left) return false;
    this.#used += count;
    return true;
  }

  release(count: number): void {
    this.#used -= count;
  }
}

/** Remedy for a reached RLIMIT_NOFILE. */
export const LIMIT_REMEDY = 'raise it by LimitNOFILE= of the systemd unit, or by ulimit -n';
