import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Cable } from '../cable.ts';
import { missingPrograms, startCarrier } from './carrier.ts';
import { tapPairCable } from './tap-pair.ts';

/** Headroom of an mbuf, and the Ethernet header with a VLAN tag, in bytes. */
const MBUF_EXTRA = 128 + 18;
/** In bytes: an mbuf holds 65535. */
const MAX_MTU = 16384;

/** One line with the remedy where DPDK is not installed. */
export const missingMemif = () => missingPrograms(['dpdk-testpmd'], 'dpdk-dev');

/** DPDK: testpmd for each end, which forwards between a TAP interface and memif. Both poll and never sleep. */
export function memifCable(): Promise<Cable> {
  const directory = mkdtempSync(join(tmpdir(), 'ivshmem-memif-'));
  const socket = join(directory, 'memif');
  return tapPairCable({
    name: 'DPDK memif',
    network: '10.68.0',
    tap: 'memif0',
    maxMtu: MAX_MTU,
    restartForMtu: true,
    startEnd(end, netns, mtu) {
      const bytes = mtu + MBUF_EXTRA;
      const role = end === 0 ? 'server' : 'client';
      const eal = ['-l', '0-1', '--no-huge', '-m', '512', '--no-pci', '--no-shconf', '--no-telemetry'];
      eal.push('--file-prefix', `ivshmem-bench-${process.pid}-${end}`);
      eal.push('--vdev', 'net_tap0,iface=memif0');
      eal.push('--vdev', `net_memif0,role=${role},socket=${socket},socket-abstract=no,bsize=${bytes}`);
      const testpmd = ['--forward-mode=io', '--auto-start', '--total-num-mbufs=8192'];
      testpmd.push(`--mbuf-size=${bytes}`, `--max-pkt-len=${mtu + 18}`);
      return startCarrier(['dpdk-testpmd', ...eal, '--', ...testpmd], { netns });
    },
    cleanup: () => rmSync(directory, { recursive: true }),
  });
}
