import { State } from '@ivshmem/transport/protocol';
import { type Decision, NOTHING, Op, publish, type Rules } from './rules.ts';

/**
 * Zephyr eth_ivshmem: one thread, woken by every interrupt, makes one transition per wake-up and then receives; it
 * remembers nothing. It clears its rings when it starts, regardless of the other side. The interface's start and stop
 * only wake it.
 */
export function zephyr(): Rules {
  return {
    name: 'Zephyr',
    guest: true,
    boot: 0,
    start: [Op.CLEAR],
    evaluate({ own, peer, up, running }): Decision {
      if (own === State.RESET) return peer < State.READY ? { ops: publish(State.INIT) } : NOTHING;
      if (own === State.INIT) {
        return peer > State.RESET ? { ops: [Op.INITIALISE, ...publish(State.READY)] } : NOTHING;
      }
      if (peer === State.RESET || (own === State.RUN && peer >= State.READY && !up)) {
        return { ops: [Op.CARRIER_OFF, ...(running ? [Op.STOP] : []), ...publish(State.RESET)] };
      }
      if (own === State.READY && peer >= State.READY && up) {
        // Receiving begins when the evaluation is over.
        return { ops: [...publish(State.RUN), Op.CARRIER_ON, Op.START] };
      }
      return NOTHING;
    },
  };
}
