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
  /** See `counters.ts`. */
  readonly counters: Float64Array;
  readonly reports: SessionReports;
  /** The provider of the port is gone. The session goes on if the port is `usable`; if not, call `end` soon. */
  readonly providerGone: (reason: string, usable: boolean) => void;
}

/** A link on one port, from {@link begin} to {@link end}: both sides of the frames, and what is reported about them. */
export class LinkSession {
  readonly path: FramePath;
  readonly peer: Peer;
  readonly #options: SessionOptions;
  readonly #end: LinkEnd;
  #up = true;
  #lastHeaderReset = Number.NEGATIVE_INFINITY;

  /** Takes over the port. Throws SystemCallError, RangeError; the caller has to close the port then. */
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

  /** The interface is up or down. Down, the peer's carrier is off, as at the other end of a veth pair. */
  setUp(up: boolean): void {
    this.#up = up;
    this.peer.setEnabled(up);
  }

  /** What this side announces about the MTU has changed. If the peer has to read it, the link is reset. */
  renewMtu(): void {
    if (!this.path.renewMtu() || !this.#up) return;
    this.setUp(false);
    this.setUp(true);
  }

  /** Reports headers of the peer that were rejected since the last call, and resets the link if it has to. */
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

  /** Before a sleep: an end that has to wait for room in the ring must not wake the thread. */
  muteEnd(): void {
    this.#end.mute(this.path.full);
  }

  /** Stops the data path, takes the state to RESET, and closes port and end. Throws SystemCallError, having closed both. */
  end(): void {
    try {
      this.peer.close();
    } finally {
      this.path.close();
    }
  }
}
