import { OptionError, yieldProcessor } from '@ivshmem/linux';
import type { NetworkInterface } from '@ivshmem/linux/network';
import { type DescriptorStore, descriptorStoreOf } from '@ivshmem/linux/process';
import { EPOLLIN, Epoll } from '@ivshmem/linux/wait';
import { countersOf, type Port, ServerPort } from '@ivshmem/transport';
import type { AnnouncedMtu, RingLayout } from '@ivshmem/transport/protocol';
import { BusyPoll } from './busy-poll.ts';
import { Counter } from './counters.ts';
import { TapEnd } from './ends/tap.ts';
import { checkPort } from './ethernet-port.ts';
import { LinkInterface } from './link-interface.ts';
import type { LinkInfo, WorkerInput, WorkerMessage } from './link-messages.ts';
import { LinkMtu, type MtuPlan } from './link-mtu.ts';
import { DEFAULT_BUSY_POLL } from './link-options.ts';
import { LinkPorts, type PortUser } from './link-ports.ts';
import { LinkRecord } from './link-record.ts';
import { LinkSession } from './link-session.ts';
import { LinkReports } from './reports.ts';

/** Polls for events after this many rounds even if the peer keeps sending. */
const ROUNDS_BETWEEN_EVENTS = 16;

/** The loop of a link's own thread: one session after the other, on the ports that {@link LinkPorts} opens. */
export class LinkLoop implements PortUser {
  readonly #input: WorkerInput;
  readonly #reports: LinkReports;
  readonly #counters: Float64Array;
  readonly #store: DescriptorStore | undefined;
  readonly #epoll = new Epoll();
  readonly #ports: LinkPorts;
  readonly #interface: LinkInterface;
  readonly #mtu: LinkMtu;
  /** Of the current session. */
  #plan: MtuPlan | undefined;
  /** The last warning and the last line about the MTU, so that neither is repeated. */
  #mtuWarning: string | null = null;
  #mtuLine = '';
  #mtuChanged = false;
  #session: LinkSession | undefined;
  #info: LinkInfo | undefined;
  #failure: Error | undefined;
  #stopping = false;

  constructor(input: WorkerInput, stopFd: number, report: (message: WorkerMessage) => void) {
    this.#input = input;
    this.#reports = new LinkReports(this.#epoll, report);
    this.#counters = countersOf(input.counters);
    const { port, wait = false, mtu, tap = '', netns = '' } = input.options;
    const log = (text: string) => this.#reports.log(text);
    const store = input.store && descriptorStoreOf(input.store);
    this.#store = store;
    // Another interface is not that of the options.
    const record = store && new LinkRecord(store.scope(`interface ${netns} ${tap}`), log);
    this.#interface = new LinkInterface(
      input.options,
      this.#epoll,
      (now, before) => this.#interfaceChanged(now, before),
      log,
      record,
    );
    this.#mtu = new LinkMtu(mtu, () => {
      if (record !== undefined) record.mtuSet = true;
    });
    const restored = this.#interface.restore();
    if (restored) this.#mtu.resume(this.#interface.current.mtu, record!.mtuSet);
    this.#ports = new LinkPorts(port, wait || restored, this.#epoll, this, store?.scope('port'));
    this.#epoll.add(stopFd, EPOLLIN, () => {
      this.#stopping = true;
    });
  }

  /** Runs the link until it is stopped. Throws an Error of one line if the link cannot continue. */
  run(): void {
    this.#ports.start();
    this.#store?.discardLeft();
    const busyPoll = new BusyPoll(this.#input.options.busyPoll ?? DEFAULT_BUSY_POLL);
    let rounds = 0;
    while (!this.#stopping) {
      if (this.#failure !== undefined) throw this.#failure;
      if (++rounds % ROUNDS_BETWEEN_EVENTS === 0) this.#epoll.wait(0);
      this.#ports.leaveLost();
      const moved = this.#session?.path.poll() ?? false;
      this.#session?.checkHeaders();
      if (this.#mtuChanged && this.#session !== undefined) {
        this.#mtuChanged = false;
        this.#renewMtu(this.#session);
      }
      if (moved) {
        busyPoll.worked();
        this.#session?.peer.port.expectMore?.();
      } else if (busyPoll.lookAgain()) {
        this.#session?.path.endReady();
        // The process that has work for this thread may be waiting for this processor.
        yieldProcessor();
      } else if (this.#session?.path.sleep() ?? true) {
        this.#session?.muteEnd();
        const events = this.#epoll.wait(this.#session?.peer.sleepLimit ?? -1);
        if (events === 0) this.#session?.path.overslept();
        this.#counters[Counter.wakeups]!++;
      }
    }
  }

  failed(error: Error): void {
    this.#failure = error;
  }

  log(text: string): void {
    this.#reports.log(text);
  }

  get port(): Port | undefined {
    return this.#session?.peer.port;
  }

  check(port: Port): void {
    this.#mtu.plan(checkPort(port), this.#interface.bridge);
  }

  begin(port: Port): void {
    let session: LinkSession;
    let info: LinkInfo;
    let plan: MtuPlan | undefined;
    try {
      const layout = checkPort(port);
      if (this.#interface.exists) this.#counters[Counter.reconnects]!++;
      const tap = this.#interface.prepare(() => {
        plan = this.#planMtu(layout);
      });
      this.leave();
      const poller = this.#epoll;
      const counters = this.#counters;
      const failed = () => this.#interface.look();
      session = new LinkSession(port, {
        poller,
        end: (memory) => new TapEnd({ tap, poller, counters, failed }, memory),
        mtu: { own: () => this.#plan!.own, agree: (peer) => this.#agreeOnMtu(peer) },
        counters,
        reports: this.#reports,
        providerGone: (reason, usable) => this.#ports.providerGone(reason, usable),
      });
      const { id, vectors } = port;
      const { outputSectionSize, length: queueLength } = layout;
      info = { id, tap: tap.name, mtu: this.#mtu.current, outputSectionSize, queueLength, vectors };
    } catch (error) {
      port.close();
      // Another port would not help.
      if (this.#interface.deleted) this.failed(error as Error);
      throw error;
    }
    this.#session = session;
    this.#plan = plan;
    this.#info = info;
    this.#reports.latest({ type: 'up', info });
    session.setUp(this.#interface.current.up);
    session.begin();
  }

  /** Another process has changed the interface. */
  #interfaceChanged({ name, mtu, up, master }: NetworkInterface, before: NetworkInterface): void {
    this.#session?.setUp(up);
    if (mtu !== before.mtu && mtu !== this.#mtu.ofInterface) this.#mtu.setOnInterface(mtu);
    // Only noted here: this may run within a step of the handshake, which must be completed first.
    if (mtu !== before.mtu || master !== before.master) this.#mtuChanged = true;
    if (name !== before.name) this.#updateInfo({ tap: name });
  }

  #updateInfo(change: Partial<LinkInfo>): void {
    if (this.#info === undefined) return;
    this.#info = { ...this.#info, ...change, mtu: this.#mtu.current };
    this.#reports.latest({ type: 'up', info: this.#info });
  }

  /** Decides which MTU to announce in output sections of this layout, and sets the interface's initial MTU. */
  #planMtu(layout: RingLayout): MtuPlan {
    const plan = this.#mtu.plan(layout, this.#interface.bridge);
    this.#mtu.begin(plan);
    if (!this.#interface.setMtu(this.#mtu.ofInterface)) {
      this.#mtu.keepOfInterface(this.#interface.current.mtu);
      return this.#planMtu(layout);
    }
    if (plan.warning !== null && plan.warning !== this.#mtuWarning) this.#reports.log(plan.warning);
    this.#mtuWarning = plan.warning;
    return plan;
  }

  #agreeOnMtu(peer: AnnouncedMtu | null): number {
    const line = this.#mtu.agree(this.#plan!, peer);
    const { current, ofInterface } = this.#mtu;
    if (line !== this.#mtuLine) this.#reports.log(line);
    this.#mtuLine = line;
    if (current !== this.#info?.mtu) this.#updateInfo({});
    if (!this.#interface.setMtu(ofInterface)) {
      this.#mtu.setOnInterface(this.#interface.current.mtu);
      this.#mtuChanged = true;
    }
    return current;
  }

  /** The interface's MTU or its bridge has changed. */
  #renewMtu(session: LinkSession): void {
    const before = this.#plan?.own;
    try {
      this.#plan = this.#planMtu(session.peer.layout);
    } catch (error) {
      // The bridge's MTU exceeds what the sections allow: keep the previous one.
      if (!(error instanceof OptionError)) throw error;
      this.#reports.log(error.message);
      return;
    }
    const { own } = this.#plan;
    if (own.set === before?.set && own.bytes === before.bytes) return;
    this.#updateInfo({});
    session.renewMtu();
  }

  leave(): void {
    const session = this.#session;
    this.#session = undefined;
    session?.end();
  }

  [Symbol.dispose](): void {
    // The next process continues on the port, if there is a store.
    const { port } = this;
    if (port instanceof ServerPort) port.detach();
    this.#ports.close();
    try {
      this.leave();
    } finally {
      this.#interface.close();
      this.#reports.close();
      this.#epoll.close();
    }
  }
}
