import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createHostServer } from '@ivshmem/host-server';
import { Netns } from '@ivshmem/linux/network';
import { assembleCable, type Cable } from '../cable.ts';
import { startCarrier } from './carrier.ts';
import { twoEndCable } from './two-ends.ts';

const COMMAND = fileURLToPath(new URL('../../../packages/cli/dist/bin/ivshmem.js', import.meta.url));
/** In bytes: the largest MTU fits many times. */
export const OUTPUT_SECTION_SIZE = 0x400000;

/** Options of `ivshmem net`. */
export interface IvshmemSettings {
  /** In µs; the command's default if undefined. */
  readonly busyPoll?: number;
  /** False: `--no-offload`. */
  readonly offload?: boolean;
}

/** The link: a host server in this process, `ivshmem net` in a process for each end. */
export function ivshmemCable(name = 'ivshmem', { busyPoll, offload }: IvshmemSettings = {}): Promise<Cable> {
  return assembleCable(async (finallyDo) => {
    const directory = mkdtempSync(join(tmpdir(), 'ivshmem-bench-'));
    finallyDo(() => rmSync(directory, { recursive: true }));
    const socketPath = join(directory, 'socket');
    const server = createHostServer({
      socketPath,
      size: 4 * OUTPUT_SECTION_SIZE,
      outputSectionSize: OUTPUT_SECTION_SIZE,
      maxPeers: 2,
      vectors: 2,
      protocol: 1,
    });
    finallyDo(() => server.close());
    const namespaces = [Netns.create(), Netns.create()] as const;
    for (const netns of namespaces) finallyDo(() => netns.close());

    const start = (mtu: number) =>
      namespaces.map((netns, index) => {
        const argv = [
          'net',
          '--json',
          '--until-eof',
          '--socket',
          socketPath,
          '--tap',
          'ivn0',
          '--netns',
          netns.path,
        ];
        argv.push('--address', `10.64.0.${index + 1}/24`, '--mtu', String(mtu));
        if (busyPoll !== undefined) argv.push('--busy-poll', String(busyPoll));
        if (offload === false) argv.push('--no-offload');
        return startCarrier([process.execPath, COMMAND, ...argv]);
      });
    return await twoEndCable(
      { name, namespaces, address: '10.64.0.2', start, isThere: isCarrierOn },
      finallyDo,
    );
  });
}

function isCarrierOn(line: string): boolean {
  const { event, carrier } = JSON.parse(line);
  return event === 'state' && carrier;
}
