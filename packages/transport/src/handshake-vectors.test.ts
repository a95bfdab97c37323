import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type HandshakeState, handshakeStep, INITIAL_HANDSHAKE, stateName } from './handshake.ts';

interface Vectors {
  steps: {
    state: string;
    carrier: boolean;
    peer: number;
    fault: boolean;
    enabled: boolean;
    actions: string[];
    next: string;
    nextCarrier: boolean;
  }[];
}

const { steps }: Vectors = JSON.parse(
  readFileSync(new URL('../../../docs/vectors/handshake.json', import.meta.url), 'utf8'),
);

/** All states that can be reached, by what they are called in the vectors. */
function reachableStates(): Map<string, HandshakeState> {
  const states = new Map<string, HandshakeState>();
  const pending = [INITIAL_HANDSHAKE];
  for (let state = pending.pop(); state !== undefined; state = pending.pop()) {
    const name = `${stateName(state.published)} ${state.carrier}`;
    if (states.has(name)) continue;
    states.set(name, state);
    for (let peer = 0; peer <= 4; peer++) pending.push(handshakeStep(state, peer, false, true).next);
  }
  return states;
}

const states = reachableStates();

describe('handshake vectors', () => {
  it.each(steps)(
    '$state, carrier $carrier, peer $peer, fault $fault, enabled $enabled: $actions',
    (expected) => {
      const { state, carrier, peer, fault, enabled } = expected;
      const step = handshakeStep(states.get(`${state} ${carrier}`)!, peer, fault, enabled);
      const actions = step.actions.map((action) => {
        if (action.type === 'publish') return `publish ${stateName(action.state)}`;
        return action.type === 'carrier' ? `carrier ${action.on ? 'on' : 'off'}` : action.type;
      });
      expect(actions).toEqual(expected.actions);
      expect(stateName(step.next.published)).toBe(expected.next);
      expect(step.next.carrier).toBe(expected.nextCarrier);
    },
  );

  it('cover all states', () => {
    expect(new Set(steps.map(({ state, carrier }) => `${state} ${carrier}`))).toEqual(new Set(states.keys()));
  });
});
