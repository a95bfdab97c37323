import { State } from '@ivshmem/transport/protocol';
import { type Decision, NOTHING, Op, publish, type Rules, type View } from './rules.ts';

/** Memory: the peer's state at the last evaluation. */
const UNKNOWN = 4;

/** RESET and INIT, which both versions treat alike. */
function beforeReady({ own, peer }: View): number[] {
  if (own === State.RESET) return peer < State.READY ? publish(State.INIT) : [];
  return peer > State.RESET ? [Op.INITIALISE, ...publish(State.READY)] : [];
}

/** The data path is started at most once, and only while the interface is up. */
function run({ up, running }: View): number[] {
  return up && !running ? [Op.START, ...publish(State.RUN)] : [];
}

/** At READY, and the peer is not or has not been seen there: to bring the interface up now is too early. */
function tooEarly({ own, peer }: View, peerSeen: boolean): boolean {
  return own === State.READY && !(peer >= State.READY && peerSeen);
}

/** ndo_stop of both versions publishes RESET from any state, and forgets nothing of what was seen. */
function stop({ own }: View): number[] {
  return own === State.RESET ? [] : publish(State.RESET);
}

/**
 * Linux ivshmem-net of the Jailhouse kernels since 5.10. Each interrupt queues a work item, which does nothing if
 * the peer's state has not changed. RESET is published before the data path has stopped. Bringing the
 * interface up at READY leads to RUN in any state of the peer.
 */
export function linux({ opensEarly = false } = {}): Rules {
  const carrier = (peer: number) => (peer === State.RUN ? [Op.CARRIER_ON] : []);
  return {
    name: opensEarly ? 'Linux, brought up early' : 'Linux',
    guest: true,
    boot: UNKNOWN,
    staysDown: (view) => !opensEarly && tooEarly(view, view.memory >= State.READY),
    evaluate(view): Decision {
      const { memory, own, peer, up, running } = view;
      if (peer === memory) return NOTHING;
      if (own < State.READY) return { memory: peer, ops: beforeReady(view) };
      if (peer >= State.READY) return { memory: peer, ops: up ? [...carrier(peer), ...run(view)] : [] };
      if (peer === State.INIT) return { memory: peer, ops: [] };
      const stop = running ? [Op.CARRIER_OFF, Op.STOP] : [];
      return { memory: peer, ops: [...publish(State.RESET), ...stop] };
    },
    open: (view) => (view.own >= State.READY ? { ops: [...carrier(view.memory), ...run(view)] } : NOTHING),
    close: (view) => ({ ops: [...stop(view), ...(view.running ? [Op.CARRIER_OFF, Op.STOP] : [])] }),
  };
}

/**
 * Its first version (Jailhouse kernels 5.4): the interrupt handler queues no work item if the data path runs and
 * the peer's state is the one of last time; the work item always acts, and remembers at its end what it read at its
 * beginning.
 */
export function linux54({ opensEarly = false } = {}): Rules {
  return {
    name: opensEarly ? 'Linux 5.4, brought up early' : 'Linux 5.4',
    guest: true,
    boot: State.RESET,
    staysDown: (view) => !opensEarly && tooEarly(view, view.carrier),
    heeds: ({ memory, peer, running }) => peer !== memory || !running,
    evaluate(view): Decision {
      const { own, peer, running } = view;
      const remember = Op.REMEMBER + peer;
      if (own < State.READY) return { ops: [...beforeReady(view), remember] };
      if (own === State.READY && peer >= State.READY) {
        return { ops: [Op.CARRIER_ON, ...run(view), remember] };
      }
      if (peer !== State.RESET) return { ops: [remember] };
      return { ops: [Op.CARRIER_OFF, ...publish(State.RESET), ...(running ? [Op.STOP] : []), remember] };
    },
    open: (view) => (view.own >= State.READY ? { ops: run(view) } : NOTHING),
    close: (view) => ({ ops: [...stop(view), ...(view.running ? [Op.STOP] : [])] }),
  };
}
