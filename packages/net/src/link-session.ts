import { type Poller, Timer } from '@ivshmem/linux/wait';
import type { Port, PortEvent } from '@ivshmem/transport';
import {
  Handshake,
  type HandshakeStatus,
  HeaderFault,
  headerFaultText,
  type RingLayout,
  STATE_VECTOR,
  State,
  Violation,
  violationText,
} from '@ivshmem/transport/protocol';
import { Counter } from './counters.ts';
import type { EndMemory, LinkEnd } from './ends/link-end.ts';
import { FramePath, type PathMtu } from './frame-path.ts';
import { offloadNames } from './offload.ts';
import type { LinkReports } from './reports.ts';

/**
 * After so many frames in a row with headers that must be refused, the two sides seem to disagree about headers, which
 * a reset mends: it makes both read the other's capabilities again.
 */
const REFUSED_HEADERS = 16;
/** Least time between two such resets, in ms, in case it mends nothing. */
const HEADER_RESET_INTERVAL = 10_000;

/** What a session reports; the rest is up to the loop that runs it. */
type SessionReports = Pick<LinkReports<never>, 'latest' | 'log' | 'violation'>;

/** What a session needs besides its port. */
export interface SessionOptions {
  readonly poller: Poller;
  /** Makes the end of the link, which the session owns. */
  readonly end: (memory: EndMemory) => LinkEnd;
  readonly mtu: PathMtu;
  readonly layout: RingLayout;
  /** See `counters.ts`. */
  readonly counters: Float64Array;
  readonly reports: SessionReports;
  /** The provider of the port is gone. The session goes on if the port is `usable`; if not, call `end` soon. */
  readonly providerGone: (reason: string, usable: boolean) => void;
}

/** A link on one port, from {@link begin} to {@link end}: the handshake, the data path, and the port's events. */
export class LinkSession {
  readonly port: Port;
  readonly path: FramePath;
  readonly layout: RingLayout;
  readonly #options: SessionOptions;
  readonly #end: LinkEnd;
  readonly #peer: number;
  readonly #handshake: Handshake;
  readonly #pollTimer: Timer;
  #pollInterval = 0;
  #up = true;
  #lastHeaderReset = Number.NEGATIVE_INFINITY;
  /** The port may not be used any more. */
  #lost = false;

  /** Takes over the port. Throws SystemCallError, RangeError; the port stays the caller's then. */
  constructor(port: Port, options: SessionOptions) {
    const { poller, mtu, layout, counters } = options;
    this.port = port;
    this.layout = layout;
    this.#options = options;
    this.#peer = 1 - port.id;
    const own = port.output!;
    const input = port.input(this.#peer)!;
    const end = options.end({ own, peer: input, layout });
    this.#end = end;
    this.path = new FramePath({ port, peer: this.#peer, own, input, layout, end, mtu, counters });
    try {
      this.#pollTimer = new Timer(poller, () => this.#poll());
    } catch (error) {
      this.path.close();
      throw error;
    }
    this.#handshake = new Handshake(port, this.#peer, this.path);
  }

  /** Starts the handshake, and reports its states from now on. Throws SystemCallError: call {@link end} then. */
  begin(): void {
    const { counters } = this.#options;
    this.#end.listen(() => this.path.endReady());
    this.port.onInterrupt((vector) => {
      counters[Counter.interrupts]!++;
      if (vector === STATE_VECTOR) this.#evaluate();
    });
    this.port.onEvent((event) => this.#follow(event));
    this.#handshake.onChange((status) => this.#report(status));
    this.#report(this.#handshake.status);
    this.#evaluate();
  }

  #report(status: HandshakeStatus): void {
    const { counters } = this.#handshake;
    this.#options.counters[Counter.resets] = counters.resets;
    this.#options.counters[Counter.invalidPeerStates] = counters.invalidPeerStates;
    const offloads = status.carrier ? offloadNames(this.path.capabilities) : [];
    this.#options.reports.latest({ type: 'state', status: { ...status, offloads } });
  }

  #follow(event: PortEvent): void {
    switch (event.type) {
      case 'peer-joined':
        this.#poll();
        break;
      case 'peer-gone':
        this.#evaluate();
        break;
      case 'provider-gone':
        this.#lost = !event.usable;
        this.#options.providerGone(event.reason, event.usable);
        break;
    }
  }

  #evaluate(): void {
    if (this.#lost) return;
    this.#handshake.evaluate();
    this.#followHandshake();
  }

  #poll(): void {
    if (this.#lost) return;
    this.#handshake.poll();
    this.#followHandshake();
  }

  #followHandshake(): void {
    const { pollInterval } = this.#handshake;
    // A handshake that has failed needs no polls; what it threw ends the link.
    if (pollInterval === this.#pollInterval || !Number.isFinite(pollInterval)) return;
    this.#pollInterval = pollInterval;
    this.#pollTimer.every(pollInterval);
  }

  /** The interface is up or down. Down, the peer's carrier is off, as at the other end of a veth pair. */
  setUp(up: boolean): void {
    this.#up = up;
    if (this.#lost) return;
    this.#handshake.setEnabled(up);
    this.#followHandshake();
  }

  /** What this side announces about the MTU has changed. If the peer has to read it, the link is reset. */
  renewMtu(): void {
    if (!this.path.renewMtu() || !this.#up) return;
    this.setUp(false);
    this.setUp(true);
  }

  /** Reports what the peer did wrong since the last call, and resets the link if it has to. */
  lookForFaults(): void {
    const fault = this.#end.takeHeaderFault();
    if (fault !== HeaderFault.NONE) {
      this.#options.reports.violation(
        `a frame header has ${headerFaultText(fault)}`,
        'such frames are dropped',
      );
    }
    if (this.#end.refusedInARow >= REFUSED_HEADERS) this.#headersRefused();
    if (this.path.violation !== Violation.NONE) this.#violated();
  }

  #violated(): void {
    const text = violationText(this.path.violation);
    this.path.violation = Violation.NONE;
    // The server clears the rings of a peer that has gone: that is no violation.
    if (this.port.peerState(this.#peer) < State.READY) {
      this.#evaluate();
      return;
    }
    this.#options.reports.violation(text, 'the link is reset');
    this.#reset();
  }

  #headersRefused(): void {
    const now = performance.now();
    if (now - this.#lastHeaderReset < HEADER_RESET_INTERVAL) return;
    this.#lastHeaderReset = now;
    const { reports } = this.#options;
    reports.log(`${REFUSED_HEADERS} frames of the peer in a row have wrong headers; the link is reset`);
    this.#reset();
  }

  #reset(): void {
    this.#options.counters[Counter.violations]!++;
    this.#handshake.fault();
    this.#followHandshake();
  }

  /** Before a sleep: an end that has to wait for room in the ring must not wake the thread. */
  muteEnd(): void {
    this.#end.mute(this.path.full);
  }

  /** Stops the data path, takes the state to RESET, and closes port and end. Throws SystemCallError, having closed both. */
  end(): void {
    try {
      this.#handshake.shutdown();
    } finally {
      this.#pollTimer.close();
      this.path.close();
      this.port.close();
    }
  }
}
