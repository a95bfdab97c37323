import { readFileSync, writeFileSync } from 'node:fs';
import type { Netns } from '@ivshmem/linux';

const SETTING = '/proc/sys/net/ipv4/tcp_congestion_control';

/** The algorithm that TCP uses on this machine unless it is told otherwise. */
export function congestionControl(): string {
  return readFileSync(SETTING, 'utf8').trim();
}

/** Has TCP use this algorithm in a network namespace. Throws Error where the kernel doesn't have it. */
export function setCongestionControl(netns: Netns, algorithm: string): void {
  netns.run(() => writeFileSync(SETTING, algorithm));
}
