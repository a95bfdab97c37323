/** Values of the state register under protocol 0x0001. Source: protocol page, section 5. */
export const State = { RESET: 0, INIT: 1, READY: 2, RUN: 3 } as const;
export type State = (typeof State)[keyof typeof State];

const NAMES = ['RESET', 'INIT', 'READY', 'RUN'] as const;

/** The name of a state register value; `invalid (0x7)` for one above 3. */
export function stateName(value: number): string {
  return NAMES[value] ?? `invalid (0x${value.toString(16)})`;
}

/** Whether a state table entry, an arbitrary u32, is none of the four states. */
export function isInvalidState(value: number): boolean {
  return value > State.RUN;
}

/** The state that one side has published, and what it remembers of the other. */
export interface HandshakeState {
  /** Its own state register. */
  readonly published: State;
  /**
   * Whether both sides are at RUN as far as this one has seen; only then may the network stack send, since a peer at
   * READY may be unable to receive yet.
   */
  readonly carrier: boolean;
  /**
   * Whether RESET is only being shown to a peer that has not answered INIT: it may act on nothing but a change of this
   * state, and may have seen INIT already. To everyone else this side is at INIT.
   */
  readonly insisting: boolean;
}

/** The input of a step besides the peer's state. */
export interface HandshakeEvents {
  /** A protocol violation that the data path has found. */
  readonly fault: boolean;
  /** This side has been taken down administratively: it comes to rest at RESET, whatever the peer does. */
  readonly disabled: boolean;
  /** Time to change what the peer sees, if it does not answer: see {@link HandshakeState.insisting}. */
  readonly stalled: boolean;
}

export const NO_EVENTS: HandshakeEvents = { fault: false, disabled: false, stalled: false };

/** The actions of a step, which the caller performs in the order given. */
export type HandshakeAction =
  /** Clear its own output section and set up both queues from index 0. */
  | { readonly type: 'initialise' }
  /** Start the data path: from now on it reads the peer's section. */
  | { readonly type: 'start' }
  /** Stop the data path: after that, the peer may clear its section at any moment. */
  | { readonly type: 'stop' }
  /** Set the carrier: whether the network stack can exchange frames. */
  | { readonly type: 'carrier'; readonly on: boolean }
  /** Write the state register. */
  | { readonly type: 'publish'; readonly state: State };

export interface HandshakeStep {
  /** The state once all actions are done; the very object that was passed in if there is nothing to do. */
  readonly next: HandshakeState;
  readonly actions: readonly HandshakeAction[];
}

// All possible states and steps, created once, so that a step allocates nothing.
const RESET: HandshakeState = { published: State.RESET, carrier: false, insisting: false };
const INSISTING: HandshakeState = { published: State.RESET, carrier: false, insisting: true };
const INIT: HandshakeState = { published: State.INIT, carrier: false, insisting: false };
const READY: HandshakeState = { published: State.READY, carrier: false, insisting: false };
const RUN: HandshakeState = { published: State.RUN, carrier: false, insisting: false };
const RUN_BOTH: HandshakeState = { published: State.RUN, carrier: true, insisting: false };

function publish(state: State): HandshakeAction {
  return { type: 'publish', state };
}
const initialise: HandshakeAction = { type: 'initialise' };
const start: HandshakeAction = { type: 'start' };
const stop: HandshakeAction = { type: 'stop' };
const carrierOn: HandshakeAction = { type: 'carrier', on: true };
const carrierOff: HandshakeAction = { type: 'carrier', on: false };

const wait = new Map(
  [RESET, INSISTING, INIT, READY, RUN, RUN_BOTH].map((next): [HandshakeState, HandshakeStep] => [
    next,
    { next, actions: [] },
  ]),
);
const toInit: HandshakeStep = { next: INIT, actions: [publish(State.INIT)] };
const toReady: HandshakeStep = { next: READY, actions: [initialise, publish(State.READY)] };
const toRun: HandshakeStep = { next: RUN, actions: [start, publish(State.RUN)] };
const toRunBoth: HandshakeStep = { next: RUN_BOTH, actions: [start, publish(State.RUN), carrierOn] };
const peerRuns: HandshakeStep = { next: RUN_BOTH, actions: [carrierOn] };
const insist: HandshakeStep = { next: INSISTING, actions: [publish(State.RESET)] };
const forget: HandshakeStep = { next: RESET, actions: [] };
// The data path rests before RESET is published: that is what allows the peer to clear its section.
const resetBeforeRun: HandshakeStep = { next: RESET, actions: [publish(State.RESET)] };
const resetFromRun: HandshakeStep = { next: RESET, actions: [stop, publish(State.RESET)] };
const resetFromRunBoth: HandshakeStep = { next: RESET, actions: [carrierOff, stop, publish(State.RESET)] };

/** The state in which a side starts: it has published RESET and has not seen the other. */
export const INITIAL_HANDSHAKE: HandshakeState = RESET;

/**
 * One step of the state handshake: what to do about the peer's state table entry `peerState`, an arbitrary u32 (what
 * is above 3 counts as RESET), and about `events`. Publishes one state at most: call it again with the step's `next`
 * until that is `self`, `fault` and `stalled` only the first time. Pure, and allocates nothing. `self` must be
 * {@link INITIAL_HANDSHAKE} or come from a step; throws TypeError otherwise. Source: docs/handshake.md, "The table".
 */
export function handshakeStep(
  self: HandshakeState,
  peerState: number,
  { fault, disabled, stalled }: HandshakeEvents = NO_EVENTS,
): HandshakeStep {
  const peer = isInvalidState(peerState) ? State.RESET : peerState;
  switch (self) {
    case RESET:
      // At READY or RUN the peer has not noticed our reset, and its data path may still run on our section.
      if (!disabled && peer <= State.INIT) return toInit;
      break;
    case INSISTING:
      if (disabled || peer >= State.READY) return forget;
      if (stalled || peer === State.INIT) return toInit;
      break;
    case INIT:
      // A peer that runs its data path before we were READY has begun too early: our section is not clear yet.
      if (disabled || peer === State.RUN) return resetBeforeRun;
      if (peer >= State.INIT) return toReady;
      if (stalled) return insist;
      break;
    case READY:
      if (disabled || fault || peer === State.RESET) return resetBeforeRun;
      if (peer >= State.READY) return peer === State.RUN ? toRunBoth : toRun;
      break;
    // No state leads back but to RESET: a peer that is lower than before has been there unseen.
    case RUN:
      if (disabled || fault || peer < State.READY) return resetFromRun;
      if (peer === State.RUN) return peerRuns;
      break;
    case RUN_BOTH:
      if (disabled || fault || peer < State.RUN) return resetFromRunBoth;
      break;
    default:
      throw new TypeError('handshake state of unknown origin: pass INITIAL_HANDSHAKE or the next of a step');
  }
  return wait.get(self)!;
}

/**
 * How often to ring the peer's vector 0 and look at the state table, in ms, besides waiting for interrupts: every 100
 * until both sides run, every 1000 from then on. Either side's interrupts go nowhere while it lacks the other's
 * eventfds, and neither side learns of it; so one must look, and make the other look.
 */
export function pollInterval(self: HandshakeState): number {
  return self === RUN_BOTH ? 1000 : 100;
}
