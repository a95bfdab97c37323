import type { Poller } from '@ivshmem/linux/wait';
import { Peer, type Port } from '@ivshmem/transport';
import {
  type HandshakeStatus,
  HeaderFault,
  headerFaultText,
  violationText,
} from '@ivshmem/transport/protocol';
import { Counter } from './counters.ts';
import type { EndMemory, LinkEnd } from './ends/link-end.ts';
import { FramePath, type PathMtu } from './frame-path.ts';
import { offloadNames } from './offload.ts';
import type { LinkReports } from './reports.ts';

/**
 * After this many consecutive frames with invalid headers, the two sides probably disagree about capabilities. A reset
 * resolves that, since both sides then read them again.
 */
const REFUSED_HEADERS = 16;
/** Minimum interval between two such resets, in ms, in case they do not help. */
const HEADER_RESET_INTERVAL = 10_000;

/** The reports that a session makes itself; its loop makes the others. */
type SessionReports = Pick<LinkReports<never>, 'latest' | 'log' | 'violation'>;

/** What a session needs besides its port. */
export interface SessionOptions {
  readonly poller: Poller;
  /** Creates the end of the link, which the session owns. */
  readonly end: (memory: EndMemory) => LinkEnd;
  readonly mtu: PathMtu;
  /** See `counters.ts`. */
  readonly counters: Float64Array;
  readonly reports: SessionReports;
  /** The provider of the port has gone away. The session continues if the port is `usable`; if not, call `end` soon. */
  readonly providerGone: (reason: string, usable: boolean) => void;
}

/** A link on one port, from {@link begin} to {@link end}: peer, data path and end, and the reports about them. */
export class LinkSession {
  readonly path: FramePath;
  readonly peer: Peer;
  readonly #options: SessionOptions;
  readonly #end: LinkEnd;
  #up = true;
  #lastHeaderReset = Number.NEGATIVE_INFINITY;

  /** Takes ownership of the port. Throws SystemCallError, RangeError; the caller has to close the port then. */
  constructor(port: Port, options: SessionOptions) {
    const { poller, mtu, counters } = options;
    this.#options = options;
    const peer = new Peer(port, poller);
    this.peer = peer;
    try {
      this.#end = options.end({ own: peer.own, peer: peer.input, layout: peer.layout });
    } catch (error) {
      peer.close();
      throw error;
    }
    this.path = new FramePath(peer, this.#end, mtu, counters);
  }

  /** Starts the handshake, and reports its states from now on. Throws SystemCallError: call {@link end} then. */
  begin(): void {
    const { counters, reports, providerGone } = this.#options;
    const { path } = this;
    this.#end.listen(() => path.endReady());
    this.#report(this.peer.status);
    this.peer.begin({
      announce: () => path.announce(),
      start: () => path.start(),
      stop: () => path.stop(),
      carrier: (on) => this.#end.carrier(on),
      changed: (status) => this.#report(status),
      interrupted: () => {
        counters[Counter.interrupts]!++;
      },
      violated: (violation) => {
        counters[Counter.violations]!++;
        reports.violation(violationText(violation), 'the link is reset');
      },
      providerGone,
    });
  }

  #report(status: HandshakeStatus): void {
    const { counters } = this.peer;
    this.#options.counters[Counter.resets] = counters.resets;
    this.#options.counters[Counter.invalidPeerStates] = counters.invalidPeerStates;
    const offloads = status.carrier ? offloadNames(this.path.capabilities) : [];
    this.#options.reports.latest({ type: 'state', status: { ...status, offloads } });
  }

  /** Follows the interface up or down. While it is down, the peer has no carrier, as with a veth pair. */
  setUp(up: boolean): void {
    this.#up = up;
    this.peer.setEnabled(up);
  }

  /** The MTU that this side announces has changed. Resets the link if the peer has to read it. */
  renewMtu(): void {
    if (!this.path.renewMtu() || !this.#up) return;
    this.setUp(false);
    this.setUp(true);
  }

  /** Reports the peer's headers that were rejected since the last call, and resets the link if there are too many. */
  checkHeaders(): void {
    const fault = this.#end.takeHeaderFault();
    if (fault !== HeaderFault.NONE) {
      this.#options.reports.violation(
        `a frame header has ${headerFaultText(fault)}`,
        'such frames are dropped',
      );
    }
    if (this.#end.refusedInARow >= REFUSED_HEADERS) this.#headersRefused();
  }

  #headersRefused(): void {
    const now = performance.now();
    if (now - this.#lastHeaderReset < HEADER_RESET_INTERVAL) return;
    this.#lastHeaderReset = now;
    const { reports } = this.#options;
    reports.log(`${REFUSED_HEADERS} frames of the peer in a row have wrong headers; the link is reset`);
    this.#options.counters[Counter.violations]!++;
    this.peer.fault();
  }

  /** Call before a sleep: while the ring is full, frames at the end must not wake the thread. */
  muteEnd(): void {
    this.#end.mute(this.path.full);
  }

  /** Stops the data path, publishes RESET, and closes port and end. Throws SystemCallError, having closed both. */
  end(): void {
    try {
      this.peer.close();
    } finally {
      this.path.close();
    }
  }
}
