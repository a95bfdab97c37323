import { readdirSync } from 'node:fs';
import { openFilesLimit } from '@ivshmem/linux/process';

/** Kept free for what is no peer: the log, metrics, lists of peers, a configuration that is read again. */
const RESERVE = 64;

/** What a process may have open, shared by all its servers: each peer takes its socket and its eventfds. */
export class DescriptorBudget {
  /** RLIMIT_NOFILE, as it was when this was made. */
  readonly limit: number;
  #used: number;

  /** `limit` descriptors, of which `used` are taken already. */
  constructor(limit: number, used: number) {
    this.limit = limit;
    this.#used = used + RESERVE;
  }

  /** That of this process: its soft limit, and what it has open now. Throws SystemCallError. */
  static ofProcess(): DescriptorBudget {
    return new DescriptorBudget(openFilesLimit().soft, readdirSync('/proc/self/fd').length);
  }

  /** How many are left; 0 where others in the process have taken more than there are. */
  get left(): number {
    return Math.max(0, this.limit - this.#used);
  }

  /** Takes `count`, to be given back by {@link give}; false where so many are not left, and none are taken. */
  take(count: number): boolean {
    if (count > this.left) return false;
    this.#used += count;
    return true;
  }

  give(count: number): void {
    this.#used -= count;
  }
}

/** What to do about a limit that is in the way. */
export const LIMIT_REMEDY = 'raise it by LimitNOFILE= of the systemd unit, or by ulimit -n';
