import { TAP_MAX_MTU } from '@ivshmem/linux';
import { tcpTransfer, udpTransfer } from '@ivshmem/traffic';
import { alternate, comparisonLines, type Reading } from './alternate.ts';
import { type Cable, FIRST_MTU, resumed, withCables, withMtu } from './cable.ts';
import { ivshmem, memif, socat, vde, veth } from './cables.ts';
import type { Measurement } from './results.ts';

/** Ethernet, IPv4 and UDP headers. */
const UDP_HEADERS = 14 + 20 + 8;
/** Bytes of a frame: the smallest, and the largest at the usual MTU. */
const FRAMES = [64, 1514];
const MTUS = [FIRST_MTU, 9000, 16384, TAP_MAX_MTU];
const CABLES = [ivshmem, veth, memif, vde, socat];

export const tapSettings = { udpSeconds: 1, tcpSeconds: 2, mtus: MTUS };

/**
 * TAP to TAP through two processes, beside other cables in the same rounds: UDP frames that arrive in a second, and TCP
 * at several MTUs. Rejects with the signal's reason when that is aborted.
 */
export function benchTap(rounds: number, signal: AbortSignal): Promise<Measurement[]> {
  const udp = async (cable: Cable): Promise<Reading[]> => {
    const readings: Reading[] = [];
    const { from, to, address } = cable;
    for (const frame of FRAMES) {
      const { received, seconds } = await udpTransfer({
        from: from.path,
        to: to.path,
        address,
        size: frame - UDP_HEADERS,
        seconds: tapSettings.udpSeconds,
        signal,
      });
      readings.push({ what: `UDP, ${frame}-byte frames`, unit: 'thousand/s', value: received / seconds / 1000 });
    }
    return readings;
  };
  const tcp = (mtu: number) => async (cable: Cable): Promise<Reading[]> => {
    const { from, to, address } = cable;
    const seconds = tapSettings.tcpSeconds;
    const { bitsPerSecond } = await tcpTransfer({ from: from.path, to: to.path, address, seconds, signal });
    return [{ what: `TCP, MTU ${mtu}`, unit: 'Gbit/s', value: bitsPerSecond / 1e9 }];
  };
  return withCables(CABLES, signal, async (cables) => {
    const measurements: Measurement[] = [];
    const compare = async (able: readonly Cable[], measure: (cable: Cable) => Promise<Reading[]>) => {
      const found = await alternate(able, rounds, (cable) => resumed(cable, measure));
      for (const line of comparisonLines(found)) console.log(line);
      measurements.push(...found);
    };
    await compare(cables, udp);
    for (const mtu of MTUS) await compare(await withMtu(cables, mtu), tcp(mtu));
    return measurements;
  });
}
