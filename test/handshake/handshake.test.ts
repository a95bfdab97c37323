import { afterAll, describe, expect, it } from 'vitest';
import { crtos } from './crtos.ts';
import { linux, linux54 } from './linux.ts';
import { type Caller, ours } from './ours.ts';
import { Field, get, Phase } from './peer-state.ts';
import { Op, type Rules } from './rules.ts';
import { type Findings, search } from './search.ts';
import { System } from './system.ts';
import { zephyr } from './zephyr.ts';

/**
 * How many messages a client may be behind. 5 is enough for every history with two crashes: a client that reads nothing
 * meanwhile learns once of both deaths and of three arrivals. BACKLOG in the environment searches deeper.
 */
const BACKLOG = Number(process.env.BACKLOG ?? 5);
/** Drivers that remember more have more states: enough for one crash. */
const SHORT_BACKLOG = Number(process.env.BACKLOG ?? 3);

const report: string[] = [];

function system(rules0: Rules, rules1: Rules, atomic = false): System {
  const large = [linux54().name, linux54({ opensEarly: true }).name, crtos().name];
  return new System(rules0, rules1, large.includes(rules1.name) ? SHORT_BACKLOG : BACKLOG, atomic);
}

/** Visits all states, and reports how many there are. */
function explore(rules0: Rules, rules1: Rules): Findings {
  const findings = search(system(rules0, rules1));
  const { states, steps } = findings;
  report.push(`${rules0.name} / ${rules1.name}: all of ${states} states and ${steps} steps`);
  return findings;
}

/** The shortest way into a hang; with TRACES in the environment it is printed. */
function firstHang(rules0: Rules, rules1: Rules): readonly string[] | null {
  const { hang } = search(system(rules0, rules1), { untilHang: true });
  show(`${rules0.name} / ${rules1.name}: a hang after ${hang?.length} steps`, hang);
  return hang;
}

function show(title: string, trace: readonly string[] | null | undefined): void {
  report.push(title);
  if (process.env.TRACES !== undefined) report.push(...(trace ?? []).map((line) => `    ${line}`));
}

// By the IDs nothing differs in the system, and both orders of connecting are in each search: ours / Linux covers both
// roles.
const others = [ours(), ours({ guest: true }), linux(), linux54(), zephyr(), crtos()];
const foreign = [linux(), linux54(), zephyr(), crtos()];

afterAll(() => {
  console.log(report.join('\n'));
});

describe('two peers, of which one is ours', () => {
  for (const us of [ours(), ours({ guest: true })]) {
    for (const other of others) {
      it(`always bring the link up, and keep it: ${us.name} / ${other.name}`, () => {
        const { hang, stuck, unnoticed, unstable, violations, states } = explore(us, other);
        expect({ hang, stuck, unnoticed, unstable, violations }).toEqual({
          hang: null,
          stuck: null,
          unnoticed: null,
          unstable: null,
          violations: new Map(),
        });
        expect(states).toBeGreaterThan(10_000);
      });
    }
  }

  it.each(others)(
    'come to an end in a bounded number of steps where no evaluations overlap: ours / $name',
    (other) => {
      const rules = { ...other, ringsOnPoll: () => false };
      const { cycle, hang, longest } = search(system(ours({ ringsOnPoll: false }), rules, true));
      expect({ cycle, hang }).toEqual({ cycle: null, hang: null });
      expect(longest).toBeLessThan(70);
    },
  );

  it('may chase one another only while each acts on a state that the other is about to leave', () => {
    const { cycle, stuck } = search(system(ours({ ringsOnPoll: false }), linux()));
    expect(cycle).not.toBeNull();
    expect(stuck).toBeNull();
  });

  it.each([ours(), zephyr(), crtos()])(
    'bear a section that is cleared under a data path, by the server or at the start of $name',
    (other) => {
      // What `violations` found to be empty above says the peers never do it later on. Our data path must bear it.
      const { witness } = search(system(ours(), other), {
        wanted: (peer0, peer1) =>
          get(peer0, Field.RUNNING) === 1 &&
          (get(peer1, Field.PHASE) === Phase.GONE || system(ours(), other).currentOp(1, peer1) === Op.CLEAR),
      });
      expect(witness).not.toBeNull();
    },
  );
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
      it(`a hang if our side ${habit}: ${other.name}`, () => {
        expect(firstHang({ ...ours(caller), name: `ours, which ${habit}` }, other)).not.toBeNull();
      });
    }
  }

  it('no hang if our side rings when it polls, but does not announce itself', () => {
    for (const other of [linux(), zephyr()]) {
      expect(search(system(ours({ announces: false }), other)).stuck).toBeNull();
    }
  });

  it('a peer that stays at RESET, if our side does not insist: Linux, taken down at INIT', () => {
    for (const guest of [false, true]) {
      const { stuck } = search(system(ours({ guest, insists: false }), linux()));
      show(`ours, which does not insist / Linux: stuck after ${stuck?.length} steps`, stuck);
      expect(stuck?.length).toBeLessThan(12);
      expect(stuck).toContainEqual(expect.stringContaining('peer 1 takes its interface down'));
    }
    // Drivers that look at the state itself, and not at its change, need none of that.
    for (const other of [ours(), zephyr()]) {
      expect(search(system(ours({ insists: false }), other)).stuck).toBeNull();
    }
  });

  it('a section that is cleared under a data path, if our side does not wait at RESET', () => {
    const hasty = ours();
    const { violations } = search(
      system(
        { ...hasty, evaluate: (view) => hasty.evaluate({ ...view, peer: view.own === 0 ? 0 : view.peer }) },
        ours(),
      ),
    );
    expect(violations.size).toBeGreaterThan(0);
  });

  it('a data path of Linux that starts too early when its interface is brought up at READY', () => {
    const { violations, stuck } = explore(ours(), linux({ opensEarly: true }));
    expect(Array.from(violations.values(), (trace) => trace.slice(-2))).toEqual([
      [expect.stringContaining('peer 1 brings its interface up'), expect.stringContaining('peer 1 starts')],
    ]);
    expect(stuck).toBeNull();
  });

  it('that the first version of Linux stays without a carrier then', () => {
    const { violations, stuck } = explore(ours(), linux54({ opensEarly: true }));
    expect(violations.size).toBe(1);
    expect(stuck?.at(-1)).toContain('brings its interface up');
  });
});
