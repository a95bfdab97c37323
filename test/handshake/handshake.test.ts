import { afterAll, describe, expect, it } from 'vitest';
import { linux, linux54 } from './linux.ts';
import { type Caller, ours } from './ours.ts';
import { Field, get, Phase } from './peer-state.ts';
import type { Rules } from './rules.ts';
import { type Findings, search } from './search.ts';
import { System } from './system.ts';
import { zephyr } from './zephyr.ts';

/**
 * Enough for every history with four crashes: a client that reads nothing meanwhile is told once of each of the four
 * deaths and of five arrivals.
 */
const BACKLOG = 9;

const report: string[] = [];

/** Visits all states, and reports how many there are. */
function explore(rules0: Rules, rules1: Rules): Findings {
  const findings = search(new System(rules0, rules1, BACKLOG));
  const { states, steps } = findings;
  report.push(`${rules0.name} / ${rules1.name}: all of ${states} states and ${steps} steps`);
  return findings;
}

/** The shortest way into a hang; with TRACES in the environment it is printed. */
function firstHang(rules0: Rules, rules1: Rules): readonly string[] | null {
  const { hang } = search(new System(rules0, rules1, BACKLOG), { untilHang: true });
  report.push(`${rules0.name} / ${rules1.name}: a hang after ${hang?.length} steps`);
  if (process.env.TRACES !== undefined) report.push(...(hang ?? []).map((line) => `    ${line}`));
  return hang;
}

// By the IDs nothing differs in the system, and both orders of connecting are in each search: ours / Linux covers both
// roles.
const others = [ours(), ours({ guest: true }), linux(), linux54(), zephyr(), zephyr(true)];
const foreign = [linux(), linux54(), zephyr()];

afterAll(() => {
  console.log(report.join('\n'));
});

describe('two peers, of which one is ours', () => {
  for (const us of [ours(), ours({ guest: true })]) {
    for (const other of others) {
      it(`always bring the link up, and keep it: ${us.name} / ${other.name}`, () => {
        const { hang, stuck, unnoticed, unstable, violation, states } = explore(us, other);
        expect({ hang, stuck, unnoticed, unstable, violation }).toEqual({
          hang: null,
          stuck: null,
          unnoticed: null,
          unstable: null,
          violation: null,
        });
        expect(states).toBeGreaterThan(10_000);
      });
    }
  }

  it.each(others)(
    'come to an end in a bounded number of steps where no evaluations overlap: ours / $name',
    (other) => {
      const rules = { ...other, ringsOnPoll: false };
      const { cycle, hang, longest } = search(new System(ours({ ringsOnPoll: false }), rules, BACKLOG, true));
      expect({ cycle, hang }).toEqual({ cycle: null, hang: null });
      expect(longest).toBeLessThan(60);
    },
  );

  it('may chase one another only while each acts on a state that the other is about to leave', () => {
    const { cycle, stuck } = search(new System(ours({ ringsOnPoll: false }), linux(), BACKLOG));
    expect(cycle).not.toBeNull();
    expect(stuck).toBeNull();
  });

  it('leave the section alone under the data path of the other, unlike the server', () => {
    // What `violation` found to be null above says the peers never do it. The server clears what a dead peer has left,
    // and that may be before the survivor stops: its data path must bear it.
    const { witness } = search(new System(ours(), ours(), BACKLOG), {
      wanted: (peer0, peer1) => get(peer0, Field.PHASE) === Phase.GONE && get(peer1, Field.RUNNING) === 1,
    });
    expect(witness).not.toBeNull();
  });
});

describe('what the search finds', () => {
  for (const [i, a] of foreign.entries()) {
    for (const b of foreign.slice(i)) {
      it(`a hang of drivers among themselves: ${a.name} / ${b.name}`, () => {
        expect(firstHang(a, b)).not.toBeNull();
      });
    }
  }

  const callers: [string, Caller][] = [
    ['rings nobody and never polls', { announces: false, ringsOnPoll: false, polls: 'never' }],
    ['announces itself and never polls', { ringsOnPoll: false, polls: 'never' }],
    ['polls and rings nobody', { announces: false, ringsOnPoll: false }],
    ['announces itself and polls until both run', { ringsOnPoll: false, polls: 'until RUN/RUN' }],
    ['is in a guest and does not ring when it polls', { guest: true, ringsOnPoll: false }],
  ];
  for (const [habit, caller] of callers) {
    for (const other of foreign) {
      it(`a hang where our side ${habit}: ${other.name}`, () => {
        expect(firstHang({ ...ours(caller), name: `ours, which ${habit}` }, other)).not.toBeNull();
      });
    }
  }

  it('no hang where our side rings when it polls, but does not announce itself', () => {
    for (const other of foreign) {
      expect(search(new System(ours({ announces: false }), other, BACKLOG)).stuck).toBeNull();
    }
  });

  it('a section that is cleared under a data path, where our side does not wait at RESET', () => {
    const hasty = ours();
    const { violation } = search(
      new System(
        { ...hasty, evaluate: (view) => hasty.evaluate({ ...view, peer: view.own === 0 ? 0 : view.peer }) },
        ours(),
        BACKLOG,
      ),
    );
    expect(violation).not.toBeNull();
  });

  it('a data path of Linux that starts too early when its interface is brought up at READY', () => {
    const { violation, stuck } = explore(ours(), linux(true));
    expect(violation?.slice(-2)).toEqual([
      expect.stringContaining('brings its interface up'),
      expect.stringContaining('peer 1 starts'),
    ]);
    expect(stuck).toBeNull();
  });

  it('that the first version of Linux stays without a carrier then', () => {
    const { violation, stuck } = explore(ours(), linux54(true));
    expect(violation).not.toBeNull();
    expect(stuck?.at(-1)).toContain('brings its interface up');
  });
});
