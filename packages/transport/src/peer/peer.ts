import { type Poller, Timer } from '@ivshmem/linux/wait';
import type { Port, PortEvent } from '../port/port.ts';
import { State } from '../protocol/handshake.ts';
import {
  Handshake,
  type HandshakeCounters,
  type HandshakeStatus,
  RING_VECTOR,
  STATE_VECTOR,
} from '../protocol/handshake-driver.ts';
import type { Section } from '../protocol/memory-layout.ts';
import { type RingLayout, ringLayout } from '../protocol/ring-layout.ts';
import { RxQueue } from '../protocol/rx-queue.ts';
import { TxQueue } from '../protocol/tx-queue.ts';
import { Violation } from '../protocol/violation.ts';

/**
 * Delays of the reminders for a sender that may have missed the interrupt for its last completions, in ms after these
 * or after the previous reminder: first, last, and the factor between two of them. One is enough, unless the sender's
 * CPU stalls while it holds a lock.
 */
const FIRST_REMINDER = 2;
const LAST_REMINDER = 200;
const REMINDER_GROWTH = 10;

/**
 * The code that uses a peer's queues. All functions are optional. An exception that one throws ends the handshake, and
 * propagates out of the call, or of the poller's wait, that led to it.
 */
export interface PeerUser {
  /** The output section was cleared, READY comes next: announce here what this side can receive. */
  announce?(): void;
  /** The data path may run: both queues are at index 0, and the announcements of the other side can be read. */
  start?(): void;
  /** The data path must not run any more. Also called if another of these functions has thrown. */
  stop?(): void;
  /** Whether both sides run, so that frames can be sent. */
  carrier?(on: boolean): void;
  /** The status of the handshake has changed. */
  changed?(status: HandshakeStatus): void;
  /** An interrupt on this vector: the queues may have news. */
  interrupted?(vector: number): void;
  /** The other side has violated the protocol; the handshake is reset once this returns. */
  violated?(violation: Violation): void;
  /** The provider of the port has gone away: see PortEvent. If the port is not `usable`, close the peer soon. */
  providerGone?(reason: string, usable: boolean): void;
}

/**
 * One of the two sides of protocol 0x0001 on a port: the handshake with the other side, and both queues. It handles
 * the port's interrupts and events on a poller.
 *
 *     const peer = new Peer(port, poller);
 *     peer.begin({ carrier: (on) => …, interrupted: () => … });
 *     …                                        // while peer.running:
 *     const slot = peer.tx.reserve(length);    // a slot in peer.own, or -1
 *     …write a frame there…
 *     peer.tx.commit(length);
 *     for (let n = peer.rx.available(); n > 0 && peer.rx.next(); n--)
 *       …use rx.length bytes at rx.offset of peer.input…
 *     peer.flush();                            // both directions become visible; one doorbell, if requested
 *     if (peer.sleep()) …wait for an interrupt, peer.sleepLimit ms at most…
 *
 * {@link flush}, {@link sleep} and the queues allocate nothing. Between {@link PeerUser.stop} and the next
 * {@link PeerUser.start} the queues must not be used.
 */
export class Peer {
  readonly port: Port;
  /** ID of the other side. */
  readonly other: number;
  readonly layout: RingLayout;
  /** This side's output section, writable. */
  readonly own: Section;
  /** The other side's output section, read-only. It can change at any time. */
  readonly input: Section;
  readonly tx: TxQueue;
  readonly rx: RxQueue;
  /** Whether the queues may be used. */
  running = false;

  readonly #vector: number;
  readonly #handshake: Handshake;
  readonly #timer: Timer;
  #user: PeerUser = {};
  #pollInterval = 0;
  /** The port must not be used any more. */
  #lost = false;
  /** Time to the next reminder, in ms; -1: none is due. */
  #reminder = -1;
  #sleepLimit = -1;

  /**
   * Takes ownership of the port, publishes RESET, and does nothing more until {@link begin}. Throws RangeError if the port
   * is not that of one of two peers with output sections, LayoutError if the sections are too small, SystemCallError;
   * the caller keeps the port then.
   */
  constructor(port: Port, poller: Poller) {
    const { id, output } = port;
    if (id > 1 || output === null) {
      throw new RangeError(`peer ${id}: protocol 0x0001 needs peers 0 and 1, with output sections`);
    }
    this.port = port;
    this.other = 1 - id;
    this.own = output;
    this.input = port.input(this.other)!;
    this.layout = ringLayout(output.length);
    this.tx = new TxQueue(this.own, this.input, this.layout, port.dirtyOutput);
    this.rx = new RxQueue(this.own, this.input, this.layout);
    this.#vector = port.vectors > RING_VECTOR ? RING_VECTOR : STATE_VECTOR;
    this.#handshake = new Handshake(port, this.other, {
      initialise: () => this.#initialise(),
      start: () => this.#start(),
      stop: () => this.#stop(),
      carrier: (on) => this.#user.carrier?.(on),
    });
    this.#timer = new Timer(poller, () => this.poll());
  }

  /** Starts the handshake, and calls the user from now on. Throws SystemCallError, and what the user throws. */
  begin(user: PeerUser): void {
    this.#user = user;
    this.port.onInterrupt((vector) => {
      user.interrupted?.(vector);
      if (vector === STATE_VECTOR) this.evaluate();
    });
    this.port.onEvent((event) => this.#follow(event));
    this.#handshake.onChange((status) => user.changed?.(status));
    this.evaluate();
  }

  /** As of the last change. */
  get status(): HandshakeStatus {
    return this.#handshake.status;
  }

  get counters(): HandshakeCounters {
    return this.#handshake.counters;
  }

  #initialise(): void {
    this.tx.initialise();
    this.rx.initialise();
    this.#user.announce?.();
  }

  #start(): void {
    this.#user.start?.();
    this.#reminder = -1;
    this.#sleepLimit = -1;
    this.running = true;
  }

  #stop(): void {
    this.running = false;
    this.#user.stop?.();
  }

  #follow(event: PortEvent): void {
    switch (event.type) {
      case 'peer-joined':
        this.poll();
        break;
      case 'peer-gone':
        this.evaluate();
        break;
      case 'provider-gone':
        this.#lost = !event.usable;
        this.#user.providerGone?.(event.reason, event.usable);
        break;
    }
  }

  /** Acts on the states of both sides as they are now. Interrupts and events do this by themselves. */
  evaluate(): void {
    if (this.#lost) return;
    this.#handshake.evaluate();
    this.#setTimer();
  }

  /** Interrupts the other side, which may have missed a change, and evaluates. A timer does this by itself. */
  poll(): void {
    if (this.#lost) return;
    this.#handshake.poll();
    this.#setTimer();
  }

  /** Takes this side down administratively, or up again: see {@link Handshake.setEnabled}. */
  setEnabled(on: boolean): void {
    if (this.#lost) return;
    this.#handshake.setEnabled(on);
    this.#setTimer();
  }

  /** The user has found that the other side does not follow the protocol: resets the handshake. */
  fault(): void {
    this.#handshake.fault();
    this.#setTimer();
  }

  #setTimer(): void {
    const { pollInterval } = this.#handshake;
    // A handshake that has ended needs no polls.
    if (pollInterval === this.#pollInterval || !Number.isFinite(pollInterval)) return;
    this.#pollInterval = pollInterval;
    this.#timer.every(pollInterval);
  }

  /**
   * Makes committed frames visible and completes those taken from {@link rx}, then interrupts the other side if it
   * requested that. Returns whether it did. Resets the handshake if a queue has found a violation. Only while
   * {@link running}.
   */
  flush(): boolean {
    const { rx, tx } = this;
    let rings = false;
    if (rx.held > 0) {
      this.#reminder = FIRST_REMINDER;
      rings = rx.flush();
    }
    if (tx.flush()) rings = true;
    if (rings) this.port.ring(this.other, this.#vector);
    if ((rx.violation | tx.violation) !== Violation.NONE) this.#takeViolation();
    return rings;
  }

  /**
   * Requests an interrupt at the next frame of the other side, unless this side accepts no `frames` at present. Returns
   * false if one has arrived meanwhile. Otherwise the caller may sleep, {@link sleepLimit} ms at most. To be
   * interrupted for room in {@link tx}, use its `waitForRoom`, before this. Resets the handshake as {@link flush} does.
   * Only while {@link running}.
   */
  sleep(frames = true): boolean {
    const idle = !frames || this.rx.waitForFrames();
    this.#sleepLimit = this.#reminder !== -1 && this.rx.mayBeAwaited() ? this.#reminder : -1;
    if ((this.rx.violation | this.tx.violation) === Violation.NONE) return idle;
    this.#takeViolation();
    return false;
  }

  /** The longest sleep after {@link sleep}, in ms; -1: no limit. If it passes without an interrupt, call {@link overslept}. */
  get sleepLimit(): number {
    return this.running ? this.#sleepLimit : -1;
  }

  /** Interrupts a sender that may have missed the interrupt for its last completions. Returns whether there may be one. */
  overslept(): boolean {
    if (this.sleepLimit === -1) return false;
    const next = this.#reminder * REMINDER_GROWTH;
    this.#reminder = next > LAST_REMINDER ? -1 : next;
    this.port.ring(this.other, this.#vector);
    return true;
  }

  #takeViolation(): void {
    // The server clears the rings of a peer that has disconnected: that is no violation.
    if (this.port.peerState(this.other) < State.READY) {
      this.evaluate();
      return;
    }
    this.#user.violated?.(this.rx.violation || this.tx.violation);
    this.fault();
  }

  /** Ends the handshake at RESET and closes the port. Throws what the user's functions throw, having closed it. */
  close(): void {
    try {
      this.#handshake.shutdown();
    } finally {
      this.#timer.close();
      this.port.close();
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
