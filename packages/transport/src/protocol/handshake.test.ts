import { describe, expect, it } from 'vitest';
import {
  type HandshakeState,
  type HandshakeStep,
  handshakeStep,
  INITIAL_HANDSHAKE,
  NO_EVENTS,
  pollInterval,
  State,
  stateName,
} from './handshake.ts';

/** The state after the peer has shown these states one after the other. */
function after(...peerStates: number[]): HandshakeState {
  return peerStates.reduce((self, peer) => handshakeStep(self, peer).next, INITIAL_HANDSHAKE);
}

function told(step: HandshakeStep): string[] {
  return step.actions.map((action) => {
    if (action.type === 'publish') return stateName(action.state);
    return action.type === 'carrier' ? `carrier ${action.on ? 'on' : 'off'}` : action.type;
  });
}

const { RESET, INIT, READY, RUN } = State;
const inReset = after();
const inInit = after(RESET);
const inReady = after(INIT, INIT);
const inRun = after(INIT, INIT, READY);
const inRunBoth = after(INIT, INIT, RUN);

describe('handshakeStep', () => {
  it.each([
    // The table of the protocol page, section 5, by own state and by peer state from RESET to RUN.
    ['RESET', inReset, [['INIT'], ['INIT'], [], []]],
    // A peer that runs too early must start over.
    ['INIT', inInit, [[], ['initialise', 'READY'], ['initialise', 'READY'], ['RESET']]],
    ['READY', inReady, [['RESET'], [], ['start', 'RUN'], ['start', 'RUN', 'carrier on']]],
    ['RUN', inRun, [['stop', 'RESET'], ['stop', 'RESET'], [], ['carrier on']]],
    [
      'RUN with carrier',
      inRunBoth,
      [
        ['carrier off', 'stop', 'RESET'],
        ['carrier off', 'stop', 'RESET'],
        ['carrier off', 'stop', 'RESET'],
        [],
      ],
    ],
  ])('follows the table at %s', (_, self, rows) => {
    expect([RESET, INIT, READY, RUN].map((peer) => told(handshakeStep(self, peer)))).toEqual(rows);
  });

  it.each([4, 7, 0x80000003, 0xffffffff])('treats the peer state %s as RESET', (value) => {
    for (const self of [inReset, inInit, inReady, inRun, inRunBoth]) {
      expect(handshakeStep(self, value)).toBe(handshakeStep(self, RESET));
    }
  });

  it('goes to RESET on a violation, and ignores one that is reported too late', () => {
    expect(told(handshakeStep(inRunBoth, RUN, { ...NO_EVENTS, fault: true }))).toEqual([
      'carrier off',
      'stop',
      'RESET',
    ]);
    expect(told(handshakeStep(inRun, READY, { ...NO_EVENTS, fault: true }))).toEqual(['stop', 'RESET']);
    expect(told(handshakeStep(inReady, READY, { ...NO_EVENTS, fault: true }))).toEqual(['RESET']);
    expect(told(handshakeStep(inReset, READY, { ...NO_EVENTS, fault: true }))).toEqual([]);
    expect(told(handshakeStep(inInit, INIT, { ...NO_EVENTS, fault: true }))).toEqual(['initialise', 'READY']);
  });

  it('keeps no memory of the past when it is back at RESET', () => {
    expect(handshakeStep(inRunBoth, RESET).next).toBe(INITIAL_HANDSHAKE);
    expect(handshakeStep(inRun, INIT).next).toBe(INITIAL_HANDSHAKE);
    expect(handshakeStep(inReady, RESET).next).toBe(INITIAL_HANDSHAKE);
  });

  it('returns the same objects each time, so that polling makes no garbage', () => {
    for (const self of [inReset, inInit, inReady, inRun, inRunBoth]) {
      for (const peer of [RESET, INIT, READY, RUN]) {
        expect(handshakeStep(self, peer)).toBe(handshakeStep(self, peer));
      }
    }
    expect(handshakeStep(inRunBoth, RUN).next).toBe(inRunBoth);
  });

  it('rejects a state that it has not made', () => {
    expect(() => handshakeStep({ ...inInit }, INIT)).toThrow(TypeError);
  });

  it('keeps the order of actions, whatever the peer publishes and whenever violations are found', () => {
    // All paths through the states, with the state of the data path after each action.
    interface Walk {
      readonly self: HandshakeState;
      readonly initialised: boolean;
      readonly running: boolean;
      readonly carrier: boolean;
    }
    const seen = new Set<string>();
    const pending: Walk[] = [{ self: INITIAL_HANDSHAKE, initialised: false, running: false, carrier: false }];
    const all = [inReset, inInit, inReady, inRun, inRunBoth];
    for (let walk = pending.pop(); walk !== undefined; walk = pending.pop()) {
      const key = JSON.stringify([all.indexOf(walk.self), walk]);
      if (seen.has(key)) continue;
      seen.add(key);
      const steps = [handshakeStep(walk.self, RUN, { ...NO_EVENTS, disabled: true })];
      for (const peer of [RESET, INIT, READY, RUN, 99]) {
        for (const fault of [false, true])
          steps.push(handshakeStep(walk.self, peer, { ...NO_EVENTS, fault }));
      }
      for (const step of steps) {
        let { initialised, running, carrier } = walk;
        let published = walk.self.published;
        for (const action of step.actions) {
          switch (action.type) {
            case 'initialise':
              expect({ running, published }).toEqual({ running: false, published: INIT });
              initialised = true;
              break;
            case 'start':
              expect({ initialised, running, published }).toEqual({
                initialised: true,
                running: false,
                published: READY,
              });
              running = true;
              break;
            case 'stop':
              expect({ running, carrier }).toEqual({ running: true, carrier: false });
              running = false;
              break;
            case 'carrier':
              expect({ running, carrier, published }).toEqual({
                running: true,
                carrier: !action.on,
                published: RUN,
              });
              carrier = action.on;
              break;
            case 'publish':
              if (action.state === READY) expect(initialised).toBe(true);
              if (action.state === RUN) expect(running).toBe(true);
              if (action.state === RESET) {
                expect(running).toBe(false);
                initialised = false;
              }
              expect(action.state).not.toBe(published);
              published = action.state;
          }
        }
        expect(step.actions.filter(({ type }) => type === 'publish').length).toBeLessThanOrEqual(1);
        expect(published).toBe(step.next.published);
        expect(carrier).toBe(step.next.carrier);
        pending.push({ self: step.next, initialised, running, carrier });
      }
    }
    expect(seen.size).toBe(all.length);
  });
});

describe('handshakeStep of a side whose peer does not answer', () => {
  const stalled = { ...NO_EVENTS, stalled: true };
  const insisting = handshakeStep(inInit, RESET, stalled).next;

  it('shows RESET once more, stays there long enough to be seen, and continues', () => {
    expect(told(handshakeStep(inInit, RESET, stalled))).toEqual(['RESET']);
    expect(insisting).toEqual({ published: RESET, carrier: false, insisting: true });
    expect(handshakeStep(insisting, RESET).next).toBe(insisting);
    expect(handshakeStep(insisting, RESET, stalled).next).toBe(inInit);
    expect(told(handshakeStep(insisting, RESET, stalled))).toEqual(['INIT']);
  });

  it('continues immediately when the peer answers', () => {
    expect(told(handshakeStep(insisting, INIT))).toEqual(['INIT']);
    // It has not seen our RESET, and has a data path or will have one.
    for (const peer of [READY, RUN]) expect(handshakeStep(insisting, peer).next).toBe(inReset);
  });

  it('does so only at INIT, and with the peer at RESET', () => {
    for (const self of [inReset, inReady, inRun, inRunBoth]) {
      for (const peer of [RESET, INIT, READY, RUN]) {
        expect(handshakeStep(self, peer, stalled)).toBe(handshakeStep(self, peer));
      }
    }
    for (const peer of [INIT, READY, RUN]) {
      expect(handshakeStep(inInit, peer, stalled)).toBe(handshakeStep(inInit, peer));
    }
  });

  it('reports nothing of it beyond what the state table shows', () => {
    expect(handshakeStep(insisting, RESET, { ...NO_EVENTS, disabled: true }).next).toBe(inReset);
    expect(pollInterval(insisting)).toBe(100);
  });
});

describe('handshakeStep of a side that is disabled', () => {
  it('stops the data path and publishes RESET, once, whatever the peer does', () => {
    for (const peer of [RESET, INIT, READY, RUN, 99]) {
      for (const fault of [false, true]) {
        const disable = (self: HandshakeState) =>
          handshakeStep(self, peer, { ...NO_EVENTS, fault, disabled: true });
        expect(told(disable(inReset))).toEqual([]);
        expect(told(disable(inInit))).toEqual(['RESET']);
        expect(told(disable(inReady))).toEqual(['RESET']);
        expect(told(disable(inRun))).toEqual(['stop', 'RESET']);
        expect(told(disable(inRunBoth))).toEqual(['carrier off', 'stop', 'RESET']);
        for (const self of [inReset, inInit, inReady, inRun, inRunBoth]) {
          expect(disable(self).next).toBe(INITIAL_HANDSHAKE);
        }
      }
    }
  });
});

describe('pollInterval', () => {
  it('is short until both sides run, and never endless', () => {
    expect([inReset, inInit, inReady, inRun, inRunBoth].map(pollInterval)).toEqual([
      100, 100, 100, 100, 1000,
    ]);
  });
});

describe('stateName', () => {
  it('names states and shows the value of others', () => {
    expect([0, 1, 2, 3, 7, 0xffffffff].map(stateName)).toEqual([
      'RESET',
      'INIT',
      'READY',
      'RUN',
      'invalid (0x7)',
      'invalid (0xffffffff)',
    ]);
  });
});
