import { cutOff, Nodes, Numbers, order } from './graph.ts';
import { Field, get } from './peer-state.ts';
import { EVENTS, type Event, FIRST_FROM_OUTSIDE, type System } from './system.ts';

/** What an exhaustive search has found. Traces are lines, shortest first found. */
export interface Findings {
  /** How many states can be reached. */
  readonly states: number;
  /** How many steps there are between them, those from outside not counted. */
  readonly steps: number;
  /** The most steps from any state to the end of all activity, when nothing more comes from outside; -1 for a cycle. */
  readonly longest: number;
  /** The path to a state in which nothing happens any more and the link is down. */
  readonly hang: readonly string[] | null;
  /** The path to a state from which no step of the drivers leads to a link that is up. */
  readonly stuck: readonly string[] | null;
  /** Violations of the invariants, by kind, and the path to the first of each. */
  readonly violations: ReadonlyMap<string, readonly string[]>;
  /** The path to a state from which the drivers may cycle endlessly. */
  readonly cycle: readonly string[] | null;
  /** The path to a link that is up and goes down by itself. */
  readonly unstable: readonly string[] | null;
  /** How it comes to an interface that is down, which the other side never notices while it stays down. */
  readonly unnoticed: readonly string[] | null;
  /** How it comes to the first state that was wanted. */
  readonly witness: readonly string[] | null;
}

export interface SearchOptions {
  /** A pair of peers that is looked for besides. */
  readonly wanted?: (peer0: number, peer1: number) => boolean;
  /** End at the first hang; what is said of all states is said of those visited until then. */
  readonly untilHang?: boolean;
}

/**
 * Visits every state that can be reached from two peers that have never connected, breadth first, and follows what
 * the drivers and the server do from each of them.
 */
export function search(system: System, { wanted, untilHang = false }: SearchOptions = {}): Findings {
  const nodes = new Nodes();
  const parents = new Numbers();
  const causes = new Numbers();
  /** Where each node's steps begin in `targets`. */
  const first = new Numbers();
  const targets = new Numbers();
  /** The event of each step. */
  const events = new Numbers();
  let hang = -1;
  const violations = new Map<string, number>();
  let unstable = -1;
  let witness = -1;

  nodes.number(0, 0);
  parents.push(-1);
  causes.push(0);
  let node = 0;
  const emit = (event: number, who: number, peer0: number, peer1: number): void => {
    const known = nodes.length;
    const target = nodes.number(peer0, peer1);
    if (target === known) {
      parents.push(node);
      causes.push(2 * event + who);
    }
    // A poll that finds nothing new is no step.
    if (event >= FIRST_FROM_OUTSIDE || target === node) return;
    targets.push(target);
    events.push(event);
  };
  for (; node < nodes.length; node++) {
    first.push(targets.length);
    const peer0 = nodes.peer0(node);
    const peer1 = nodes.peer1(node);
    const violation = system.violation(peer0, peer1);
    if (violation !== null && !violations.has(violation)) violations.set(violation, node);
    system.next(peer0, peer1, emit);
    const up = system.isLinkUp(peer0, peer1);
    if (hang === -1 && !up && targets.length === first.at(node)) hang = node;
    if (untilHang && hang !== -1) break;
    if (up && unstable === -1) {
      for (let i = first.at(node); i < targets.length; i++) {
        const target = targets.at(i);
        if (!system.isLinkUp(nodes.peer0(target), nodes.peer1(target))) unstable = target;
      }
    }
    if (witness === -1 && wanted?.(peer0, peer1)) witness = node;
  }
  first.push(targets.length);

  const trace = (end: number): string[] | null => {
    if (end === -1) return null;
    const lines: string[] = [];
    for (let at = end; parents.at(at) !== -1; at = parents.at(at)) {
      const from = parents.at(at);
      lines.push(
        describe(
          system,
          causes.at(at),
          nodes.peer0(from),
          nodes.peer1(from),
          nodes.peer0(at),
          nodes.peer1(at),
        ),
      );
    }
    return lines.reverse();
  };
  const found = {
    states: nodes.length,
    steps: targets.length,
    hang: trace(hang),
    violations: new Map(Array.from(violations, ([what, at]) => [what, trace(at)!])),
    unstable: trace(unstable),
    witness: trace(witness),
  };
  if (node < nodes.length) return { ...found, longest: -1, cycle: null, stuck: found.hang, unnoticed: null };
  const every = (test: (peer0: number, peer1: number) => boolean): Uint8Array =>
    Uint8Array.from({ length: nodes.length }, (_, at) => Number(test(nodes.peer0(at), nodes.peer1(at))));
  /** The steps but for those that an event makes. */
  const without = (event: Event): [Numbers, Numbers] => {
    const left: [Numbers, Numbers] = [new Numbers(), new Numbers()];
    for (let at = 0; at < nodes.length; at++) {
      left[0].push(left[1].length);
      for (let i = first.at(at); i < first.at(at + 1); i++) {
        if (EVENTS[events.at(i)] !== event) left[1].push(targets.at(i));
      }
    }
    left[0].push(left[1].length);
    return left;
  };
  const stuck = cutOff(
    every((peer0, peer1) => system.isLinkUp(peer0, peer1)),
    first,
    targets,
  );
  const unnoticed = cutOff(
    every((peer0, peer1) => !system.isDownUnnoticed(peer0, peer1)),
    ...without('brings its interface up'),
  );
  const { longest, onCycle } = order(nodes.length, ...without('has waited long enough'));
  return { ...found, longest, cycle: trace(onCycle), stuck: trace(stuck), unnoticed: trace(unnoticed) };
}

const STATES = ['RESET', 'INIT', 'READY', 'RUN'];

/** One line: what happens to whom, and both entries of the state table afterwards. */
function describe(
  system: System,
  cause: number,
  from0: number,
  from1: number,
  to0: number,
  to1: number,
): string {
  const who = (cause & 1) as 0 | 1;
  const op = system.currentOp(who, who === 0 ? from0 : from1);
  const event = EVENTS[cause >> 1]!;
  const states = `${STATES[get(to0, Field.STATE)]}/${STATES[get(to1, Field.STATE)]}`;
  return `${states}: peer ${who} ${event === 'goes on' ? deed(op) : event}`;
}

function deed(op: number): string {
  if (op < 4) return `publishes ${STATES[op]}`;
  if (op >= 16) return 'is done';
  return [
    'rings',
    'initialises',
    'starts',
    'stops',
    'switches the carrier on',
    'switches the carrier off',
    'clears',
  ][op - 4]!;
}
