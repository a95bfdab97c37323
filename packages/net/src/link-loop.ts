import { EPOLLIN, Epoll, type NetworkInterface, yieldProcessor } from '@ivshmem/linux';
import { countersOf, openPort, type Port, PortSeeker, ringLayout } from '@ivshmem/transport';
import { BusyPoll } from './busy-poll.ts';
import { Counter } from './counters.ts';
import { checkPort } from './ethernet-port.ts';
import { LinkInterface } from './link-interface.ts';
import type { LinkInfo, WorkerInput, WorkerMessage } from './link-messages.ts';
import { DEFAULT_BUSY_POLL, effectiveMtu } from './link-options.ts';
import { LinkSession } from './link-session.ts';
import { LinkReports } from './reports.ts';

/** How long after the end of a provider its successor is looked for, in ms. */
const RETRY = 100;
/** Whatever the peer does, events are looked at every so many rounds. */
const ROUNDS_BETWEEN_EVENTS = 16;

/** What a link does, in the thread that does nothing else: one session after the other, on the ports that it opens. */
export class LinkLoop {
  readonly #input: WorkerInput;
  readonly #reports: LinkReports;
  readonly #counters: Float64Array;
  readonly #epoll = new Epoll();
  readonly #seeker: PortSeeker<Port>;
  readonly #interface: LinkInterface;
  #session: LinkSession | undefined;
  #info: LinkInfo | undefined;
  #failure: Error | undefined;
  #stopping = false;

  constructor(input: WorkerInput, stopFd: number, tell: (message: WorkerMessage) => void) {
    this.#input = input;
    this.#reports = new LinkReports(this.#epoll, tell);
    this.#counters = countersOf(input.counters);
    this.#interface = new LinkInterface(
      input.options,
      this.#epoll,
      (now, before) => this.#interfaceChanged(now, before),
      (text) => this.#reports.log(text),
    );
    const { port, wait = false } = input.options;
    this.#seeker = new PortSeeker({
      poller: this.#epoll,
      open: (opened) => openPort(port, this.#epoll, opened),
      use: (opened) => this.#begin(opened),
      failed: (error) => this.#fail(error),
      log: (text) => this.#reports.log(text),
      wait,
    });
    this.#epoll.add(stopFd, EPOLLIN, () => {
      this.#stopping = true;
    });
  }

  /** Runs the link until it is stopped. Throws what makes it impossible to go on, an Error of one line. */
  run(): void {
    this.#seeker.seek();
    const busyPoll = new BusyPoll(this.#input.options.busyPoll ?? DEFAULT_BUSY_POLL);
    let rounds = 0;
    while (!this.#stopping) {
      if (this.#failure !== undefined) throw this.#failure;
      if (++rounds % ROUNDS_BETWEEN_EVENTS === 0) this.#epoll.wait(0);
      const moved = this.#session?.path.poll() ?? false;
      this.#session?.lookForFaults();
      if (moved) {
        busyPoll.worked();
        this.#session?.port.expectMore?.();
      } else if (busyPoll.lookAgain()) {
        this.#session?.path.tapReady();
        // Who has work for us may be waiting for this very processor.
        yieldProcessor();
      } else if (this.#session?.path.sleep() ?? true) {
        this.#session?.muteTap();
        this.#epoll.wait(-1);
        this.#counters[Counter.wakeups]!++;
      }
    }
  }

  #fail(error: Error): void {
    this.#failure = error;
  }

  /** Moves the link to `port`, which it owns from now on. */
  #begin(port: Port): void {
    let session: LinkSession;
    let info: LinkInfo;
    try {
      const layout = checkPort(port);
      const mtu = effectiveMtu(this.#input.options.mtu, layout);
      if (this.#interface.exists) this.#counters[Counter.reconnects]!++;
      const tap = this.#interface.prepare(mtu);
      this.#end();
      session = new LinkSession(port, {
        poller: this.#epoll,
        tap,
        mtu,
        layout,
        counters: this.#counters,
        reports: this.#reports,
        tapFailed: () => this.#interface.look(),
        providerGone: (reason) => this.#providerGone(reason),
        failed: (error) => this.#fail(error),
      });
      const { id, vectors } = port;
      const { sectionSize, length: queueLength } = layout;
      info = { id, tap: tap.name, mtu: this.#interface.current.mtu, sectionSize, queueLength, vectors };
    } catch (error) {
      port.close();
      // No other port helps.
      if (this.#interface.deleted) this.#fail(error as Error);
      throw error;
    }
    this.#session = session;
    this.#info = info;
    this.#reports.latest({ type: 'up', info });
    const { up, mtu } = this.#interface.current;
    session.interfaceIs(up, mtu);
    session.begin();
  }

  /** Others have changed the interface. */
  #interfaceChanged({ name, mtu, up }: NetworkInterface, before: NetworkInterface): void {
    this.#session?.interfaceIs(up, mtu);
    if (this.#info === undefined || (name === before.name && mtu === before.mtu)) return;
    this.#info = { ...this.#info, tap: name, mtu };
    this.#reports.latest({ type: 'up', info: this.#info });
    const { maxMtu } = ringLayout(this.#info.sectionSize);
    if (mtu === before.mtu || mtu <= maxMtu) return;
    this.#reports.log(
      `the MTU of the interface is ${mtu} now: packets above ${maxMtu} bytes find no room in the sections, and are dropped`,
    );
  }

  #providerGone(reason: string): void {
    this.#reports.log(`${reason}; the link goes on without it, and waits for it to come back`);
    this.#seeker.seek(RETRY);
  }

  /** Leaves the port in use. */
  #end(): void {
    const session = this.#session;
    this.#session = undefined;
    session?.end();
  }

  [Symbol.dispose](): void {
    this.#seeker.close();
    try {
      this.#end();
    } finally {
      this.#interface.close();
      this.#reports.close();
      this.#epoll.close();
    }
  }
}
