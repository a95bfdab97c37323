import {
  type HandshakeAction,
  type HandshakeState,
  type HandshakeStep,
  handshakeStep,
  INITIAL_HANDSHAKE,
  isInvalidState,
  pollInterval,
  State,
} from './handshake.ts';

/** The vector that state changes interrupt on. Source: specification, "State Register". */
export const STATE_VECTOR = 0;

/** The vector of ring events; on a port with a single vector, that is {@link STATE_VECTOR}. Source: protocol page, section 8. */
export const RING_VECTOR = 1;

/** What the handshake needs of a port: the registers of the specification, and the state table. */
export interface HandshakePort {
  /** ID register: this peer, 0 … maxPeers - 1. */
  readonly id: number;
  /** Maximum Peers register. */
  readonly maxPeers: number;
  /** State register: a write interrupts the other peers on vector 0. */
  state: number;
  /** State table entry of any peer, an arbitrary u32. */
  peerState(peer: number): number;
  /** Doorbell register: interrupts `peer` on `vector`. */
  ring(peer: number, vector: number): void;
}

/**
 * The data path as the handshake controls it. If one of these functions throws, the handshake shuts down permanently,
 * and the error propagates out of the call that led to it.
 */
export interface DataPath {
  /** Clears its own output section and sets up both queues from index 0. */
  initialise(): void;
  /** Starts the data path. */
  start(): void;
  /**
   * Stops the data path: once this returns, the peer's section is not read any more, and this side's is not written. Also
   * called after another of these functions has thrown, when the data path may have stopped already.
   */
  stop(): void;
  /** Frames can, or cannot, be exchanged from now on. */
  carrier(on: boolean): void;
}

/** The current state of the handshake. */
export interface HandshakeStatus {
  /** Our state register; INIT also while this side insists, so that this makes no change. */
  readonly local: State;
  /** The peer's state table entry, an arbitrary u32. */
  readonly peer: number;
  readonly carrier: boolean;
}

/** Counted since the handshake was made. */
export interface HandshakeCounters {
  /** How often this side went down to RESET from READY or RUN, for any reason but {@link Handshake.shutdown}. */
  readonly resets: number;
  /** Protocol violations that the data path reported while it ran. */
  readonly faults: number;
  /** How often the peer's state changed to a value above 3. */
  readonly invalidPeerStates: number;
}

/**
 * A peer that goes through all states in step with us takes five transitions to RUN/RUN. One that takes more in a
 * single evaluation changes its state as fast as we read it: it waits for the next poll.
 */
const MAX_TRANSITIONS = 16;

/**
 * After how many polls without an answer to INIT to show RESET once more: at first, and at most. The number is doubled
 * each time, since usually there is no peer.
 */
const FIRST_PATIENCE = 3;
const LAST_PATIENCE = 100;

/** Time between two polls of a side that is disabled, in ms. */
const DISABLED_POLL_INTERVAL = 1000;

/** Whether a peer with this state table entry may have a data path that runs. */
function hasDataPath(peerState: number): boolean {
  return peerState === State.READY || peerState === State.RUN;
}

/**
 * Keeps one side of the state handshake with `peer` on a port. The caller has it {@link evaluate} the states on every
 * interrupt of vector 0 and every 'peer-gone', and {@link poll} on every 'peer-joined' and every
 * {@link pollInterval} ms. Nothing begins before the first of these calls.
 */
export class Handshake {
  readonly #port: HandshakePort;
  readonly #peer: number;
  readonly #dataPath: DataPath;
  #status: HandshakeStatus = { local: State.RESET, peer: State.RESET, carrier: false };
  #changed: (status: HandshakeStatus) => void = () => {};
  readonly #counters = { resets: 0, faults: 0, invalidPeerStates: 0 };
  #self: HandshakeState = INITIAL_HANDSHAKE;
  #peerState: number = State.RESET;
  readonly #events = { fault: false, disabled: false, stalled: false };
  #busy = false;
  #down = false;
  /** Polls since the peer's last answer to our state, and after how many of them to insist. */
  #unanswered = 0;
  #patience = FIRST_PATIENCE;

  /**
   * Publishes RESET, since the register may still hold the state of an earlier user of the port, and rings the peer, which
   * may have missed the change. Throws RangeError if `peer` is no other peer of the port.
   */
  constructor(port: HandshakePort, peer: number, dataPath: DataPath) {
    if (!Number.isInteger(peer) || peer < 0 || peer >= port.maxPeers || peer === port.id) {
      throw new RangeError(
        `peer ${peer}: must be one of 0 to ${port.maxPeers - 1} other than ${port.id}, the ID of this side`,
      );
    }
    this.#port = port;
    this.#peer = peer;
    this.#dataPath = dataPath;
    port.state = State.RESET;
    port.ring(peer, STATE_VECTOR);
  }

  /** Sets the function that is called with the new status after each change. It replaces the one set before. */
  onChange(handler: (status: HandshakeStatus) => void): void {
    this.#changed = handler;
  }

  /** As of the last change. */
  get status(): HandshakeStatus {
    return this.#status;
  }

  get counters(): HandshakeCounters {
    return this.#counters;
  }

  /** Time to the next {@link poll}, in ms; Infinity after {@link shutdown}. Changes with the state. */
  get pollInterval(): number {
    if (this.#down) return Number.POSITIVE_INFINITY;
    if (this.#events.disabled) return DISABLED_POLL_INTERVAL;
    return pollInterval(this.#events.fault ? INITIAL_HANDSHAKE : this.#self);
  }

  /**
   * Acts on the states as they are now, until nothing changes any more, or 16 transitions have been made. Allocates
   * nothing if nothing has changed.
   */
  evaluate(): void {
    // There is a peer. If it has missed a change, it should not have to wait long.
    this.#patience = FIRST_PATIENCE;
    this.#evaluate();
  }

  #evaluate(): void {
    if (this.#busy || this.#down) return;
    this.#busy = true;
    const events = this.#events;
    try {
      for (let transitions = 0; transitions < MAX_TRANSITIONS; transitions++) {
        this.#readPeerState();
        const step = handshakeStep(this.#self, this.#peerState, events);
        events.fault = false;
        events.stalled = false;
        if (step.next === this.#self) break;
        this.#take(step);
        if (this.#down) break;
        this.#report();
      }
    } finally {
      this.#busy = false;
      if (this.#down) this.#comeDown();
    }
    this.#report();
  }

  /**
   * Interrupts the peer, in case it has missed an interrupt of ours, and evaluates, in case we have missed one of its
   * interrupts. While this side is disabled, interrupts the peer only if it has not noticed our RESET yet.
   */
  poll(): void {
    if (this.#down) return;
    if (!this.#events.disabled || hasDataPath(this.#port.peerState(this.#peer))) {
      this.#port.ring(this.#peer, STATE_VECTOR);
    }
    this.#events.stalled = this.#isStalled();
    this.#evaluate();
  }

  /** Counts a poll; whether the peer has had long enough to answer. */
  #isStalled(): boolean {
    if (this.#self.insisting) return true;
    if (this.#self.published !== State.INIT || ++this.#unanswered < this.#patience) return false;
    this.#unanswered = 0;
    this.#patience = Math.min(2 * this.#patience, LAST_PATIENCE);
    return true;
  }

  /**
   * Takes this side down administratively, or up again, as ndo_stop and ndo_open do with a network driver. When this has
   * disabled it, the carrier is off, the data path is stopped and RESET is published, until it is enabled again and
   * continues from RESET. It is enabled at first. No effect after {@link shutdown}, or if nothing changes. When called
   * from a function of the data path, it takes effect after the step in progress.
   */
  setEnabled(on: boolean): void {
    if (on === !this.#events.disabled || this.#down) return;
    this.#events.disabled = !on;
    if (on) this.poll();
    else this.evaluate();
  }

  /** The data path has found a protocol violation: takes the link to RESET. No effect unless it runs. */
  fault(): void {
    // While it is being started, RUN is not published yet.
    if (this.#down || (this.#self.published !== State.RUN && !this.#busy)) return;
    this.#counters.faults++;
    this.#events.fault = true;
    this.#evaluate();
  }

  /** Stops the data path, publishes RESET, and remains there. Idempotent. */
  shutdown(): void {
    if (this.#down) return;
    this.#down = true;
    // Called from within an action: the step at hand comes to its end first.
    if (!this.#busy) this.#comeDown();
  }

  [Symbol.dispose](): void {
    this.shutdown();
  }

  #comeDown(): void {
    this.#events.disabled = true;
    const step = handshakeStep(this.#self, this.#peerState, this.#events);
    if (step.next !== this.#self) this.#take(step);
    this.#readPeerState();
    this.#report();
  }

  #readPeerState(): void {
    const state = this.#port.peerState(this.#peer);
    if (state !== this.#peerState && isInvalidState(state)) this.#counters.invalidPeerStates++;
    this.#peerState = state;
  }

  #take(step: HandshakeStep): void {
    try {
      for (const action of step.actions) this.#do(action);
    } catch (error) {
      this.#abandon();
      throw error;
    }
    if (step.next === INITIAL_HANDSHAKE && this.#self.published >= State.READY && !this.#down)
      this.#counters.resets++;
    this.#unanswered = 0;
    this.#self = step.next;
  }

  #do(action: HandshakeAction): void {
    switch (action.type) {
      case 'initialise':
        this.#dataPath.initialise();
        break;
      case 'start':
        this.#dataPath.start();
        break;
      case 'stop':
        this.#dataPath.stop();
        break;
      case 'carrier':
        this.#dataPath.carrier(action.on);
        break;
      case 'publish':
        this.#port.state = action.state;
        break;
    }
  }

  /** The state of the data path is unknown now: the peer must not wait for it. */
  #abandon(): void {
    this.#down = true;
    try {
      this.#dataPath.carrier(false);
      this.#dataPath.stop();
    } catch {
      // The first error is the one to report.
    }
    this.#port.state = State.RESET;
    this.#self = INITIAL_HANDSHAKE;
    this.#report();
  }

  #report(): void {
    const local = this.#self.insisting ? State.INIT : this.#self.published;
    const peer = this.#peerState;
    const carrier = this.#self.carrier;
    const last = this.#status;
    if (last.local === local && last.peer === peer && last.carrier === carrier) return;
    this.#status = { local, peer, carrier };
    this.#changed(this.#status);
  }
}
