import { State } from '@ivshmem/transport/protocol';
import { type Decision, Op, publish, type Rules, type View } from './rules.ts';

/** Memory: its own idea of its state, and whether the peer was at RUN when it evaluated last. */
const PEER_RAN = 4;

/** Publishes a state after having taken note of it. */
function go(state: number, { memory }: View): number[] {
  return [Op.REMEMBER + ((memory & PEER_RAN) | state), ...publish(state)];
}

/**
 * cRTOS' driver for NuttX (2020): no timer. It clears its whole section when it starts; the interrupt handler queues no
 * work item if the data path runs and the peer's state is the one of last time. The work item does not ask whether the
 * interface is up, and ifup and ifdown write RESET to the state register without telling the state machine.
 */
export function crtos(): Rules {
  return {
    name: 'cRTOS',
    guest: true,
    boot: State.RESET,
    start: [Op.CLEAR],
    ignoresInterface: true,
    heeds: ({ memory, peer, running }) =>
      !running || peer < State.READY || (peer === State.RUN) !== memory >= PEER_RAN,
    evaluate(view): Decision {
      const { memory, peer, running } = view;
      const own = memory & 3;
      const seen = peer === State.RUN ? PEER_RAN : 0;
      const done = (state: number): number => Op.REMEMBER + (state | seen);
      if (own === State.RESET) {
        if (peer >= State.READY) return { ops: [done(own)] };
        return { ops: [...go(State.INIT, view), done(State.INIT)] };
      }
      if (own === State.INIT) {
        if (peer === State.RESET) return { ops: [done(own)] };
        return { ops: [Op.INITIALISE, ...go(State.READY, view), done(State.READY)] };
      }
      if (peer >= State.READY) {
        if (running) return { ops: [done(own)] };
        return { ops: [Op.START, ...go(State.RUN, view), Op.CARRIER_ON, done(State.RUN)] };
      }
      const stop = running ? [Op.STOP] : [];
      return { ops: [Op.CARRIER_OFF, ...go(State.RESET, view), ...stop, done(State.RESET)] };
    },
    open: (view) => ({ ops: resetRegister(view) }),
    close: (view) => ({ ops: [Op.CARRIER_OFF, ...resetRegister(view)] }),
  };
}

function resetRegister({ own }: View): number[] {
  return own === State.RESET ? [] : publish(State.RESET);
}
