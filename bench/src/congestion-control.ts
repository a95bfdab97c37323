import { readFileSync } from 'node:fs';
import { AF_INET, type Netns, openIpSocket } from '@ivshmem/linux/network';
import { CONGESTION_CONTROL } from '@ivshmem/traffic';

const SETTING = '/proc/sys/net/ipv4/tcp_congestion_control';

/** The algorithm that TCP uses on this machine by default; null if it cannot be read. */
export function defaultCongestionControl(): string | null {
  try {
    return readFileSync(SETTING, 'utf8').trim();
  } catch {
    return null;
  }
}

/** Why a socket in a network namespace can't use an algorithm, in one line; null if it can. */
export function missingCongestionControl(netns: Netns, algorithm: string): string | null {
  try {
    using socket = netns.run(() => openIpSocket(AF_INET, 'tcp', 100));
    socket.setOption(...CONGESTION_CONTROL, algorithm);
    return null;
  } catch (error) {
    return `${(error as Error).message}; /proc/sys/net/ipv4/tcp_available_congestion_control lists what there is`;
  }
}
