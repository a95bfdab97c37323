import type { DeviceReport, InterfaceReport } from '../report/report.ts';

/** A metric of each part of one kind. Names that end in `_total` are counters, others gauges. */
export interface PartMetric<Part> {
  /** After `ivshmem_interface_` or `ivshmem_device_`. */
  readonly name: string;
  readonly help: string;
  /** A label besides `link` and the part's own. */
  readonly label?: string;
  /** The samples of a part: value, and the value of the label. */
  samples(part: Part): readonly (readonly [value: number, label?: string])[];
}

type Counters = { readonly stats: Readonly<Record<string, number>> };

/** A metric that is a counter of the part. */
function counter(name: string, stat: string, help: string): PartMetric<Counters> {
  return { name: `${name}_total`, help, samples: ({ stats }) => [[stats[stat] ?? 0]] };
}

/** Several counters of the part as one metric with a label. */
function counters(
  name: string,
  label: string,
  help: string,
  stats: Readonly<Record<string, string>>,
): PartMetric<Counters> {
  return {
    name: `${name}_total`,
    help,
    label,
    samples: (part) => Object.entries(stats).map(([text, stat]) => [part.stats[stat] ?? 0, text]),
  };
}

const since: PartMetric<{ readonly since: string }> = {
  name: 'state_changed_timestamp_seconds',
  help: 'When it came into its state, since 1970.',
  samples: (part) => [[Date.parse(part.since) / 1000]],
};

/** Labels are chosen by the process, never by the peer. */
export const INTERFACE_METRICS: readonly PartMetric<InterfaceReport>[] = [
  { name: 'up', help: '1 if the interface has carrier.', samples: ({ carrier }) => [[carrier ? 1 : 0]] },
  since,
  { name: 'mtu_bytes', help: 'MTU in use.', samples: ({ mtu }) => [[mtu]] },
  counter('transmitted_frames', 'txFrames', 'Frames sent to the peer.'),
  counter('transmitted_bytes', 'txBytes', 'Bytes sent to the peer.'),
  counter('received_frames', 'rxFrames', 'Frames received from the peer.'),
  counter('received_bytes', 'rxBytes', 'Bytes received from the peer.'),
  counters(
    'dropped_frames',
    'reason',
    'Frames dropped, by reason: link-down, oversize, runt, header, refused.',
    {
      'link-down': 'dropsLinkDown',
      oversize: 'dropsOversize',
      runt: 'dropsRunt',
      header: 'dropsHeader',
      refused: 'dropsRefused',
    },
  ),
  counter('doorbells', 'doorbellsSent', 'Doorbells rung at the peer.'),
  counter(
    'doorbells_suppressed',
    'doorbellsSuppressed',
    'Bursts for which the peer had requested no doorbell.',
  ),
  counter('interrupts', 'interrupts', 'Interrupts from the peer.'),
  counter('wakeups', 'wakeups', 'Wake-ups of the thread of the link.'),
  counter('ring_full', 'ringFull', 'Waits for the peer because the ring was full.'),
  counter('resets', 'resets', 'Resets of the link from READY or RUN.'),
  counter('violations', 'violations', 'Resets because the peer violated the protocol.'),
  counter('invalid_peer_states', 'invalidPeerStates', 'Invalid values in the state of the peer.'),
  counter('reconnects', 'reconnects', 'Moves to a restarted host server.'),
];

const DEVICE_STATES = ['waiting', 'attached', 'orphaned', 'no-server'];

export const DEVICE_METRICS: readonly PartMetric<DeviceReport>[] = [
  {
    name: 'state',
    help: '1 for the state of the device: waiting, attached, orphaned, no-server.',
    label: 'state',
    samples: ({ state }) => DEVICE_STATES.map((each) => [each === state ? 1 : 0, each]),
  },
  since,
  counters('accesses', 'kind', 'Trapped accesses of the VMM, by what they accessed.', {
    'configuration-read': 'configurationReads',
    'configuration-write': 'configurationWrites',
    'register-read': 'registerReads',
    'register-write': 'registerWrites',
    'memory-read': 'memoryReads',
    'memory-write': 'memoryWrites',
  }),
  counter('doorbells', 'doorbells', 'Writes of the guest to the Doorbell register.'),
  counter('doorbells_without_effect', 'doorbellsWithoutEffect', 'Of these, those without effect.'),
  counter('interrupts', 'interrupts', 'Interrupts sent to the guest.'),
  counter('interrupts_dropped', 'interruptsDropped', 'Interrupts that the guest had not enabled.'),
  counter('resets', 'resets', 'Resets of the device.'),
  counter('attached', 'attached', 'VMMs that attached the device.'),
  counter('refused', 'refused', 'VMMs that were rejected.'),
  counter('violations', 'violations', 'VMMs that were disconnected because they violated the protocol.'),
  counter('reconnects', 'reconnects', 'Moves to a restarted host server.'),
];
