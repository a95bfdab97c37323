import {
  type Device,
  type DeviceInfo,
  type DeviceState,
  type DeviceStats,
  qemuOption,
} from '@ivshmem/device';

/** What happens to a device, as `--json` prints it. `time` is in ms since 1970. */
export type DeviceEvent = { readonly time: number; readonly vfioUser: string } & (
  | ({
      readonly event: 'up';
      /** What to give to QEMU, for a shell. */
      readonly qemu: string;
      readonly isolate: boolean;
    } & DeviceInfo)
  | { readonly event: 'state'; readonly state: DeviceState }
  | { readonly event: 'log'; readonly text: string }
  | ({ readonly event: 'stats' } & DeviceStats)
);

/** Tells everything that happens to a device from now on. */
export function followDevice(
  device: Device,
  { vfioUser, isolate }: { vfioUser: string; isolate: boolean },
  tell: (event: DeviceEvent) => void,
): void {
  const head = () => ({ time: Date.now(), vfioUser });
  device.info$.subscribe((info) =>
    tell({ event: 'up', ...head(), qemu: qemuOption(vfioUser), isolate, ...info }),
  );
  device.state$.subscribe((state) => tell({ event: 'state', ...head(), state }));
  device.log$.subscribe((text) => tell({ event: 'log', ...head(), text }));
}

const states: Record<DeviceState, string> = {
  waiting: 'waits for a VM',
  attached: 'a VM has it',
  orphaned: 'a VM has it, but the host server is gone',
  'no-server': 'waits for the host server',
};

/** An event in lines of words, the first of which names the device; more of them with `verbose`. */
export function deviceEventLines(event: DeviceEvent, verbose: boolean): string[] {
  const [first, ...more] = linesOf(event, verbose);
  return [`${event.vfioUser}: ${first}`, ...more];
}

function linesOf(event: DeviceEvent, verbose: boolean): string[] {
  switch (event.event) {
    case 'up': {
      const size = `BAR 2 of ${event.bar2Size} bytes, ${event.vectors} vectors`;
      const lines = [`peer ${event.id} of ${event.maxPeers}, ${size}; start QEMU (10.1 or later) with`];
      lines.push(`  ${event.qemu}`);
      if (verbose) lines.push(`  ${isolationText(event.isolate)}`);
      return lines;
    }
    case 'state':
      return [states[event.state]];
    case 'log':
      return [event.text];
    case 'stats': {
      const { event: _event, time: _time, vfioUser: _vfioUser, ...counters } = event;
      const words = Object.entries(counters)
        .filter(([name, value]) => value > 0 || ['attached', 'doorbells', 'interrupts'].includes(name))
        .map(([name, value]) => `${name} ${value}`);
      return [words.join(', ')];
    }
  }
}

function isolationText(isolate: boolean): string {
  return isolate
    ? 'the state table and the output sections of other peers are trapped: the guest cannot write them'
    : 'the output sections of other peers are mapped: nothing but its driver keeps the guest from writing them (see --isolate); the state table is trapped';
}
