import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TAP_MAX_MTU } from '@ivshmem/linux/network';
import type { Cable } from '../cable.ts';
import { missingPrograms } from '../programs.ts';
import { startCarrier } from './carrier.ts';
import { tapPairCable } from './tap-pair.ts';

/** One line with the remedy if socat is not installed. */
export const missingSocat = () => missingPrograms(['socat'], 'socat');

/** A socat for each end, which carries frames between a TAP interface and a Unix datagram socket. */
export function socatCable(): Promise<Cable> {
  const directory = mkdtempSync(join(tmpdir(), 'ivshmem-socat-'));
  const sockets = [join(directory, '0'), join(directory, '1')] as const;
  return tapPairCable({
    name: 'socat',
    network: '10.67.0',
    tap: 'socat0',
    maxMtu: TAP_MAX_MTU,
    startEnd(end, netns) {
      const tun = 'TUN,tun-type=tap,tun-name=socat0,iff-no-pi';
      const unix = `UNIX-SENDTO:${sockets[1 - end]},bind=${sockets[end]}`;
      // Until both are there, a frame has nowhere to go, which is an error that socat would end with.
      return startCarrier(['socat', '-b', '65536', tun, unix], { netns });
    },
    cleanup: () => rmSync(directory, { recursive: true }),
  });
}
