import type { Device, DeviceInfo, DeviceState, DeviceStats } from '@ivshmem/device';

/** What happens to a device, as `--json` prints it. `time` is in ms since 1970. */
export type DeviceEvent = { readonly time: number; readonly vfioUser: string } & (
  | ({
      readonly event: 'up';
      /** The option for QEMU, quoted for a shell. */
      readonly qemu: string;
      readonly isolate: boolean;
    } & DeviceInfo)
  | { readonly event: 'state'; readonly state: DeviceState }
  | { readonly event: 'log'; readonly text: string }
  | ({ readonly event: 'stats' } & DeviceStats)
);

/** A device that was started by a command: what its events say about it. */
export interface DeviceLabel {
  readonly vfioUser: string;
  readonly isolate: boolean;
  readonly qemu: string;
}

/** Reports everything that happens to a device from now on. */
export function followDevice(
  device: Device,
  { vfioUser, isolate, qemu }: DeviceLabel,
  report: (event: DeviceEvent) => void,
): void {
  device.info$.subscribe((info) =>
    report({ event: 'up', time: Date.now(), vfioUser, qemu, isolate, ...info }),
  );
  device.state$.subscribe((state) => report({ event: 'state', time: Date.now(), vfioUser, state }));
  device.log$.subscribe((text) => report(deviceLog(vfioUser, text)));
}

export function deviceLog(vfioUser: string, text: string): DeviceEvent {
  return { event: 'log', time: Date.now(), vfioUser, text };
}

export function deviceStats(device: Device, vfioUser: string): DeviceEvent {
  return { event: 'stats', time: Date.now(), vfioUser, ...device.stats() };
}

const states: Record<DeviceState, string> = {
  waiting: 'waiting for a VM',
  attached: 'in use by a VM',
  orphaned: 'in use by a VM, but disconnected from the host server',
  'no-server': 'waiting for the host server',
};

/** The state of a device in words; a process of another version may report one that is unknown here. */
export function deviceStateText(state: string): string {
  return Object.hasOwn(states, state) ? states[state as DeviceState] : state;
}

/** An event as lines of text, the first of which names the device; more lines with `verbose`. */
export function deviceLines(event: DeviceEvent, verbose: boolean): string[] {
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
    : 'the output sections of other peers are mapped: only its driver keeps the guest from writing them (see --isolate); the state table is trapped';
}
