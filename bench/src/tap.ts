import { missingNetworkPrivilege, TAP_MAX_MTU } from '@ivshmem/linux/network';
import { tcpTransfer, udpTransfer } from '@ivshmem/traffic';
import { alternate, type Reading } from './alternate.ts';
import { type Cable, withCables, withMtu } from './cable.ts';
import { inC, ours, socat, vde, veth } from './cables/kinds.ts';
import { defaultCongestionControl, missingCongestionControl } from './congestion-control.ts';
import type { Part, PartOptions } from './part.ts';
import type { Recorder } from './recorder.ts';

const MTUS = [1500, 9000, 16384, TAP_MAX_MTU];
/** UDP payloads and headers: of the frame with Ethernet header, in bytes. */
const UDP_FRAMES = [64, 1514];
const UDP_HEADERS = 42;
const TCP_SECONDS = 1.5;
const UDP_SECONDS = 1;
/** The kernel's own default, which a machine may have changed. */
const CUBIC = 'cubic';

const KINDS = [
  ours(),
  ours('ivshmem, no offload', { offload: false }),
  inC(),
  inC('C, no offload', { offload: false }),
  veth,
  vde,
  socat,
];

const udp =
  (what: string, size: number, signal: AbortSignal) =>
  async ({ from, to, address }: Cable): Promise<Reading[]> => {
    const payload = size - UDP_HEADERS;
    const run = { from: from.path, to: to.path, address, size: payload, seconds: UDP_SECONDS, signal };
    const { received, seconds } = await udpTransfer(run);
    return [{ what, unit: 'thousand/s', value: received / seconds / 1000 }];
  };

const tcp =
  (what: string, congestionControl: string, signal: AbortSignal) =>
  async ({ from, to, address }: Cable): Promise<Reading[]> => {
    const run = { from: from.path, to: to.path, address, seconds: TCP_SECONDS, congestionControl, signal };
    const { bitsPerSecond } = await tcpTransfer(run);
    return [{ what, unit: 'Gbit/s', value: bitsPerSecond / 1e9 }];
  };

/** Algorithms that TCP can use on these cables: the default of this machine, and cubic. */
function congestionControls([cable]: readonly Cable[], recorder: Recorder): string[] {
  const wanted = [...new Set([defaultCongestionControl() ?? CUBIC, CUBIC])];
  return wanted.filter((control) => {
    const missing = cable === undefined ? null : missingCongestionControl(cable.from, control);
    if (missing !== null) recorder.omit(`TCP (${control})`, missing);
    return missing === null;
  });
}

async function run(options: PartOptions): Promise<void> {
  const { signal, recorder } = options;
  await withCables(KINDS, options, async (cables) => {
    for (const size of UDP_FRAMES) {
      const title = `UDP, ${size}-byte frames`;
      await alternate({ title, subjects: cables, measure: udp(title, size, signal) }, options);
    }
    const controls = congestionControls(cables, recorder);
    for (const mtu of MTUS) {
      const subjects = await withMtu(cables, mtu, options);
      for (const control of controls) {
        const title = `TCP (${control}), MTU ${mtu}`;
        await alternate({ title, subjects, measure: tcp(title, control, signal) }, options);
      }
    }
  });
}

/** From one TAP to another, each end of the link a process, beside what else joins two network namespaces. */
export const tap: Part = {
  name: 'tap',
  title: 'TAP to TAP',
  missing: missingNetworkPrivilege,
  settings: { mtus: MTUS, udpFrames: UDP_FRAMES, udpSeconds: UDP_SECONDS, tcpSeconds: TCP_SECONDS },
  run,
};
