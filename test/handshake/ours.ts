import {
  type HandshakeAction,
  type HandshakeEvents,
  type HandshakeState,
  handshakeStep,
  INITIAL_HANDSHAKE,
  NO_EVENTS,
  State,
} from '@ivshmem/transport/protocol';
import { type Decision, NOTHING, Op, publish, type Rules, type View } from './rules.ts';

/** Every state that can be reached from the first one, for any behaviour of the peer. */
export function reachableStates(): HandshakeState[] {
  const states = [INITIAL_HANDSHAKE];
  for (const state of states) {
    for (const stalled of [false, true]) {
      for (let peer = 0; peer <= 4; peer++) {
        const { next } = handshakeStep(state, peer, { ...NO_EVENTS, stalled });
        if (!states.includes(next)) states.push(next);
      }
    }
  }
  return states;
}

function ops(action: HandshakeAction): number[] {
  switch (action.type) {
    case 'initialise':
      return [Op.INITIALISE];
    case 'start':
      return [Op.START];
    case 'stop':
      return [Op.STOP];
    case 'carrier':
      return [action.on ? Op.CARRIER_ON : Op.CARRIER_OFF];
    case 'publish':
      return publish(action.state);
  }
}

/** What the caller of handshakeStep does besides, as far as it differs from what `Handshake` does. */
export interface Caller {
  /** Inside a guest, on a PCI device: it does not learn when the peer has connected. */
  readonly guest?: boolean;
  /** Rings the peer when it has connected, and when this side begins. */
  readonly announces?: boolean;
  readonly polls?: 'always' | 'until RUN/RUN' | 'never';
  readonly ringsOnPoll?: boolean;
  /** Shows RESET again to a peer that does not answer INIT. */
  readonly insists?: boolean;
}

/** The real handshakeStep as rules of the search; what is remembered is the number of its state. */
export function ours(caller: Caller = {}): Rules {
  const { guest = false, announces = true, polls = 'always', ringsOnPoll = true, insists = true } = caller;
  const states = reachableStates();
  const decide =
    (events: Partial<HandshakeEvents>) =>
    ({ memory, peer, up }: View): Decision => {
      const step = handshakeStep(states[memory]!, peer, { ...NO_EVENTS, ...events, disabled: !up });
      if (step.next === states[memory]) return NOTHING;
      return { ops: [...step.actions.flatMap(ops), Op.REMEMBER + states.indexOf(step.next)] };
    };
  return {
    name: guest ? 'ours in a guest' : 'ours',
    guest,
    boot: 0,
    repeats: true,
    ringsOnJoin: announces && !guest,
    ringsOnStart: announces,
    ringsOnPoll: ({ up, peer }) => ringsOnPoll && (up || peer >= State.READY),
    polls: (memory) => polls === 'always' || (polls === 'until RUN/RUN' && !states[memory]!.carrier),
    evaluate: decide({}),
    fault: decide({ fault: true }),
    ...(insists && { insist: decide({ stalled: true }) }),
  };
}
