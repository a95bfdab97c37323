import {
  type HandshakeAction,
  type HandshakeState,
  type HandshakeStep,
  handshakeStep,
  INITIAL_HANDSHAKE,
} from '@ivshmem/transport';
import { type Decision, NOTHING, Op, publish, type Rules } from './rules.ts';

/** Every state that steps lead to from the first one, whatever the peer does. */
export function reachableStates(): HandshakeState[] {
  const states = [INITIAL_HANDSHAKE];
  for (const state of states) {
    for (const fault of [false, true]) {
      for (let peer = 0; peer <= 4; peer++) {
        const { next } = handshakeStep(state, peer, fault, true);
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
  /** Inside a guest, on a PCI device: nobody tells when the peer has connected. */
  readonly guest?: boolean;
  /** Rings the peer when it has connected, and when this side begins. */
  readonly announces?: boolean;
  readonly polls?: 'always' | 'until RUN/RUN' | 'never';
  readonly ringsOnPoll?: boolean;
}

/** The real handshakeStep as rules of the search; what is remembered is the number of its state. */
export function ours(caller: Caller = {}): Rules {
  const { guest = false, announces = true, polls = 'always', ringsOnPoll = true } = caller;
  const states = reachableStates();
  const decide = (memory: number, step: HandshakeStep): Decision =>
    step.next === states[memory]
      ? NOTHING
      : { ops: [...step.actions.flatMap(ops), Op.REMEMBER + states.indexOf(step.next)] };
  return {
    name: guest ? 'ours in a guest' : 'ours',
    guest,
    boot: 0,
    repeats: true,
    ringsOnJoin: announces && !guest,
    ringsOnStart: announces,
    ringsOnPoll,
    polls: (memory) => polls === 'always' || (polls === 'until RUN/RUN' && !states[memory]!.carrier),
    mayClose: true,
    evaluate: ({ memory, peer, up }) => decide(memory, handshakeStep(states[memory]!, peer, false, up)),
    fault: ({ memory, peer, up }) => decide(memory, handshakeStep(states[memory]!, peer, true, up)),
  };
}
