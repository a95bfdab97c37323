import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Cable } from '../cable.ts';
import { missingPrograms } from '../programs.ts';
import { startCarrier } from './carrier.ts';
import { tapPairCable } from './tap-pair.ts';

/** The buffers of VDE 2 end there, in bytes. */
const MAX_MTU = 1500;

/** One line with the remedy if VDE is not installed. */
export const missingVde = () => missingPrograms(['vde_switch', 'vde_plug2tap'], 'vde2');

/** VDE: a switch in user space, and a process that joins a TAP interface to it for each end. */
export function vdeCable(): Promise<Cable> {
  const directory = mkdtempSync(join(tmpdir(), 'ivshmem-vde-'));
  const socket = join(directory, 'switch');
  return tapPairCable({
    name: 'VDE',
    network: '10.66.0',
    tap: 'vde0',
    maxMtu: MAX_MTU,
    async startCommon() {
      const carrier = startCarrier(['vde_switch', '-s', socket]);
      // A prompt on standard output follows once it listens; commands come on standard input.
      carrier.write('ds/showinfo\n');
      await carrier.line((text) => text.includes('ctl dir'));
      return carrier;
    },
    startEnd: (_end, netns) => startCarrier(['vde_plug2tap', '-s', socket, 'vde0'], { netns }),
    cleanup: () => rmSync(directory, { recursive: true }),
  });
}
