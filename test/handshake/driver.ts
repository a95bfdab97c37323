import { Field, get } from './peer-state.ts';
import { type Decision, Op, type Rules, type View } from './rules.ts';

/** Rules with their decisions worked out beforehand, by what a driver sees. */
export interface Driver {
  readonly rules: Rules;
  readonly programs: (readonly number[])[];
  /** What it does when it starts. As in the tables: program << 3 | memory. */
  readonly start: number;
  readonly evaluate: Int32Array;
  readonly insist: Int32Array | null;
  readonly fault: Int32Array | null;
  readonly open: Int32Array | null;
  readonly close: Int32Array | null;
  readonly staysDown: Uint8Array;
  readonly heeds: Uint8Array | null;
  readonly polls: readonly boolean[];
  readonly ringsOnPoll: Uint8Array;
}

const VIEWS = 8 * 4 * 4 * 2 * 2 * 2;

/** The place of what a driver sees in the tables of {@link Driver}. */
export function viewIndex(me: number, peerState: number): number {
  return (
    get(me, Field.MEMORY) |
    (get(me, Field.STATE) << 3) |
    (peerState << 5) |
    (get(me, Field.UP) << 7) |
    (get(me, Field.RUNNING) << 8) |
    (get(me, Field.CARRIER) << 9)
  );
}

function viewAt(index: number): View {
  return {
    memory: index & 7,
    own: (index >> 3) & 3,
    peer: (index >> 5) & 3,
    up: ((index >> 7) & 1) === 1,
    running: ((index >> 8) & 1) === 1,
    carrier: ((index >> 9) & 1) === 1,
  };
}

function flags(test: (view: View) => boolean): Uint8Array {
  return Uint8Array.from({ length: VIEWS }, (_, index) => Number(test(viewAt(index))));
}

/** Works all decisions out. */
export function driver(rules: Rules): Driver {
  const programs: (readonly number[])[] = [[]];
  const numbers = new Map([['', 0]]);
  const encode = (ops: readonly number[], memory: number): number => {
    const key = ops.join();
    let number = numbers.get(key);
    if (number === undefined) {
      number = programs.push(ops) - 1;
      numbers.set(key, number);
    }
    if (number > 31 || ops.length > 7) throw new RangeError(`${rules.name}: too many steps for the encoding`);
    return (number << 3) | memory;
  };
  const table = (decide: (view: View) => Decision): Int32Array =>
    Int32Array.from({ length: VIEWS }, (_, index) => {
      const view = viewAt(index);
      // Memories that no step leads to need no decision.
      if (!reachable.has(view.memory)) return 0;
      const { memory = view.memory, ops } = decide(view);
      return encode(ops, memory);
    });
  const reachable = reachableMemories(rules);
  return {
    rules,
    programs,
    start: encode(rules.start ?? [], rules.boot),
    evaluate: table(rules.evaluate),
    insist: rules.insist ? table(rules.insist) : null,
    fault: rules.fault ? table(rules.fault) : null,
    open: rules.open ? table(rules.open) : null,
    close: rules.close ? table(rules.close) : null,
    heeds: rules.heeds ? flags(rules.heeds) : null,
    staysDown: flags(rules.staysDown ?? (() => false)),
    ringsOnPoll: flags(rules.ringsOnPoll ?? (() => false)),
    polls: Array.from({ length: 8 }, (_, memory) => reachable.has(memory) && rules.polls?.(memory) === true),
  };
}

function reachableMemories(rules: Rules): Set<number> {
  const memories = new Set([rules.boot]);
  for (const memory of memories) {
    for (let index = memory; index < VIEWS; index += 8) {
      for (const decide of [rules.evaluate, rules.insist, rules.fault, rules.open, rules.close]) {
        const decision = decide?.(viewAt(index));
        if (decision?.memory !== undefined) memories.add(decision.memory);
        for (const op of decision?.ops ?? []) if (op >= Op.REMEMBER) memories.add(op - Op.REMEMBER);
      }
    }
  }
  return memories;
}
