import { EPOLLIN, Epoll, type Tap, Timer, yieldProcessor } from '@ivshmem/linux';
import {
  countersOf,
  Handshake,
  HeaderFault,
  headerFaultText,
  type OpeningPort,
  openPort,
  type Port,
  type PortEvent,
  ringLayout,
  STATE_VECTOR,
  State,
  Violation,
  violationText,
} from '@ivshmem/transport';
import { BusyPoll } from './busy-poll.ts';
import { Counter } from './counters.ts';
import { checkPort } from './ethernet-port.ts';
import { FramePath } from './frame-path.ts';
import { LinkInterface } from './link-interface.ts';
import type { WorkerInput, WorkerMessage } from './link-messages.ts';
import { DEFAULT_BUSY_POLL, effectiveMtu } from './link-options.ts';
import { offloadNames } from './offload.ts';
import { Reports } from './reports.ts';

/** Back-off while the server is away, in ms: doubled from the first to the last. */
const FIRST_RETRY = 100;
const LAST_RETRY = 5000;
/** Whatever the peer does, events are looked at every so many rounds. */
const ROUNDS_BETWEEN_EVENTS = 16;

/** A port in use, with all that belongs to it. */
interface Session {
  readonly port: Port;
  readonly handshake: Handshake;
  readonly path: FramePath;
  readonly tap: Tap;
}

/** What a link does, in the thread that does nothing else. */
export class LinkLoop {
  readonly #input: WorkerInput;
  readonly #tell: (message: WorkerMessage) => void;
  readonly #reports: Reports;
  readonly #counters: Float64Array;
  readonly #epoll = new Epoll();
  readonly #pollTimer: Timer;
  readonly #retryTimer: Timer;
  readonly #interface: LinkInterface;
  #session: Session | undefined;
  #opening: OpeningPort | undefined;
  #failure: Error | undefined;
  #stopping = false;
  #retryDelay = FIRST_RETRY;
  #pollInterval = 0;
  #tapMuted = false;

  constructor(input: WorkerInput, stopFd: number, tell: (message: WorkerMessage) => void) {
    this.#input = input;
    this.#tell = tell;
    this.#reports = new Reports(tell);
    this.#counters = countersOf(input.counters);
    this.#interface = new LinkInterface(input.options);
    this.#pollTimer = new Timer(this.#epoll, () => this.#poll());
    this.#retryTimer = new Timer(this.#epoll, () => this.#connect());
    this.#epoll.add(stopFd, EPOLLIN, () => {
      this.#stopping = true;
    });
  }

  /** Runs the link until it is stopped. Throws what makes it impossible to go on, an Error of one line. */
  run(): void {
    this.#connect();
    const busyPoll = new BusyPoll(this.#input.options.busyPoll ?? DEFAULT_BUSY_POLL);
    let rounds = 0;
    while (!this.#stopping) {
      if (this.#failure !== undefined) throw this.#failure;
      if (++rounds % ROUNDS_BETWEEN_EVENTS === 0) this.#epoll.wait(0);
      const moved = this.#session?.path.poll() ?? false;
      if (this.#session !== undefined) this.#lookForFaults(this.#session.path);
      if (moved) {
        busyPoll.worked();
        this.#session?.port.expectMore?.();
      } else if (busyPoll.lookAgain()) {
        this.#session?.path.tapReady();
        // Who has work for us may be waiting for this very processor.
        yieldProcessor();
      } else if (this.#session?.path.sleep() ?? true) {
        this.#muteTap(this.#session?.path.full ?? false);
        this.#epoll.wait(-1);
        this.#counters[Counter.wakeups]!++;
      }
    }
  }

  #connect(): void {
    this.#opening = openPort(this.#input.options.port, this.#epoll, (opened) => {
      this.#opening = undefined;
      try {
        if (opened instanceof Error) throw opened;
        this.#begin(opened);
        this.#retryDelay = FIRST_RETRY;
      } catch (error) {
        // What fails at the start is told and ends the link; a link that has been up goes on trying.
        if (!this.#interface.exists) this.#failure = error as Error;
        else this.#retry(error as Error);
      }
    });
  }

  #retry(error: Error): void {
    if (this.#retryDelay === FIRST_RETRY) this.#reports.log(`no connection: ${error.message}; trying again`);
    this.#retryTimer.after(this.#retryDelay);
    this.#retryDelay = Math.min(this.#retryDelay * 2, LAST_RETRY);
  }

  /** Moves the link to `port`, which it owns from now on. */
  #begin(port: Port): void {
    let path: FramePath;
    let mtu: number;
    let tap: Tap;
    try {
      const layout = checkPort(port);
      mtu = effectiveMtu(this.#input.options.mtu, layout);
      if (this.#interface.exists) this.#counters[Counter.reconnects]!++;
      tap = this.#interface.prepare(mtu);
      this.#end();
      path = new FramePath({
        port,
        peer: 1 - port.id,
        own: port.output!,
        input: port.input(1 - port.id)!,
        layout,
        tap,
        mtu,
        counters: this.#counters,
      });
    } catch (error) {
      port.close();
      throw error;
    }
    const peer = 1 - port.id;
    const handshake = new Handshake(port, peer, path);
    this.#pollInterval = 0;
    this.#session = { port, handshake, path, tap };
    this.#epoll.add(tap.fd, EPOLLIN, () => path.tapReady());
    this.#tapMuted = false;
    port.onInterrupt((vector) => {
      this.#counters[Counter.interrupts]!++;
      if (vector === STATE_VECTOR) this.#evaluate();
    });
    port.events$.subscribe((event) => {
      // What a subscriber throws would wait for an event loop, and this thread has none.
      try {
        this.#follow(event);
      } catch (error) {
        this.#failure = error as Error;
      }
    });
    const { sectionSize, length } = ringLayout(port.layout.outputSize);
    this.#tell({
      type: 'up',
      info: { id: port.id, tap: tap.name, mtu, sectionSize, queueLength: length, vectors: port.vectors },
    });
    handshake.state$.subscribe((status) => {
      const offloads = status.carrier ? offloadNames(path.capabilities) : [];
      this.#reports.state({ ...status, offloads });
    });
    this.#evaluate();
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
        this.#reports.log(`${event.reason}; the link goes on without it, and waits for it to come back`);
        this.#retry(new Error(event.reason));
        break;
    }
  }

  /** Leaves the port at hand: stops the data path, tells the peer, gives everything back but the TAP. */
  #end(): void {
    const session = this.#session;
    if (session === undefined) return;
    this.#session = undefined;
    this.#epoll.remove(session.tap.fd);
    try {
      session.handshake.shutdown();
    } finally {
      session.path.close();
      session.port.close();
    }
  }

  #evaluate(): void {
    this.#session?.handshake.evaluate();
    this.#followHandshake();
  }

  #poll(): void {
    this.#reports.tick();
    this.#session?.handshake.poll();
    this.#followHandshake();
  }

  #followHandshake(): void {
    if (this.#session === undefined) return;
    const { counters, pollInterval } = this.#session.handshake;
    this.#counters[Counter.resets] = counters.resets;
    this.#counters[Counter.invalidPeerStates] = counters.invalidPeerStates;
    // A handshake that has failed needs no polls; what it threw ends the link.
    if (pollInterval === this.#pollInterval || !Number.isFinite(pollInterval)) return;
    this.#pollInterval = pollInterval;
    this.#pollTimer.every(pollInterval);
  }

  #lookForFaults(path: FramePath): void {
    const fault = path.takeHeaderFault();
    if (fault !== HeaderFault.NONE) {
      this.#reports.violation(`a frame header has ${headerFaultText(fault)}`, 'such frames are dropped');
    }
    if (path.violation !== Violation.NONE) this.#violated();
  }

  #violated(): void {
    const { port, path, handshake } = this.#session!;
    const text = violationText(path.violation);
    path.violation = Violation.NONE;
    // Rings of a peer that is gone have been cleared by the server: that is nobody's fault.
    if (port.peerState(1 - port.id) < State.READY) {
      this.#evaluate();
      return;
    }
    this.#counters[Counter.violations]!++;
    this.#reports.violation(text, 'the link is reset');
    handshake.fault();
    this.#followHandshake();
  }

  /** A TAP that has to wait for room in the ring must not wake the worker. */
  #muteTap(mute: boolean): void {
    if (mute === this.#tapMuted || this.#session === undefined) return;
    this.#tapMuted = mute;
    this.#epoll.modify(this.#session.tap.fd, mute ? 0 : EPOLLIN);
  }

  [Symbol.dispose](): void {
    this.#opening?.cancel();
    try {
      this.#end();
    } finally {
      this.#interface.close();
      this.#pollTimer.close();
      this.#retryTimer.close();
      this.#epoll.close();
    }
  }
}
