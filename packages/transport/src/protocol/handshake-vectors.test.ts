import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type HandshakeState, handshakeStep, INITIAL_HANDSHAKE, NO_EVENTS, stateName } from './handshake.ts';

interface Vectors {
  steps: {
    state: string;
    carrier: boolean;
    insisting: boolean;
    peer: number;
    fault: boolean;
    disabled: boolean;
    stalled: boolean;
    actions: string[];
    next: string;
    nextCarrier: boolean;
    nextInsisting: boolean;
  }[];
}

const { steps }: Vectors = JSON.parse(
  readFileSync(new URL('../../../../docs/vectors/handshake.json', import.meta.url), 'utf8'),
);

/** All reachable states, by their names in the vectors. */
function reachableStates(): Map<string, HandshakeState> {
  const states = new Map<string, HandshakeState>();
  const pending = [INITIAL_HANDSHAKE];
  for (let state = pending.pop(); state !== undefined; state = pending.pop()) {
    const name = `${stateName(state.published)} ${state.carrier} ${state.insisting}`;
    if (states.has(name)) continue;
    states.set(name, state);
    for (let peer = 0; peer <= 4; peer++) {
      for (const stalled of [false, true]) {
        pending.push(handshakeStep(state, peer, { ...NO_EVENTS, stalled }).next);
      }
    }
  }
  return states;
}

const states = reachableStates();

describe('handshake vectors', () => {
  it.each(steps)(
    '$state, carrier $carrier, insisting $insisting, peer $peer, fault $fault, disabled $disabled, stalled $stalled: $actions',
    (expected) => {
      const { state, carrier, insisting, peer } = expected;
      const step = handshakeStep(states.get(`${state} ${carrier} ${insisting}`)!, peer, expected);
      const actions = step.actions.map((action) => {
        if (action.type === 'publish') return `publish ${stateName(action.state)}`;
        return action.type === 'carrier' ? `carrier ${action.on ? 'on' : 'off'}` : action.type;
      });
      expect(actions).toEqual(expected.actions);
      expect(stateName(step.next.published)).toBe(expected.next);
      expect(step.next.carrier).toBe(expected.nextCarrier);
      expect(step.next.insisting).toBe(expected.nextInsisting);
    },
  );

  it('cover all states', () => {
    expect(new Set(steps.map(({ state, carrier, insisting }) => `${state} ${carrier} ${insisting}`))).toEqual(
      new Set(states.keys()),
    );
  });
});
