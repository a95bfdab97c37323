import { mainPoller, type Poller } from '@ivshmem/linux/wait';
import { countersOf, type Port, type PortSource } from '@ivshmem/transport';
import { type AnnouncedMtu, longestFrame } from '@ivshmem/transport/protocol';
import { Counter } from './counters.ts';
import type { ProgramEnd } from './ends/program.ts';
import { checkPort } from './ethernet-port.ts';
import type { EthernetInfo, WorkerMessage } from './link-messages.ts';
import { LinkMtu, type MtuPlan } from './link-mtu.ts';
import { LinkPorts, type PortUser } from './link-ports.ts';
import { LinkSession } from './link-session.ts';
import { LinkReports } from './reports.ts';

/** The most bursts in one turn of the event loop, so that the program can handle its other events. */
const BURSTS_IN_A_TURN = 4;

export interface EventLoopLinkOptions {
  readonly port: PortSource;
  readonly wait: boolean;
  /** In bytes; undefined to agree with the peer. */
  readonly mtu: number | undefined;
  /** See `counters.ts`. */
  readonly counters: SharedArrayBuffer;
  readonly end: ProgramEnd;
  /** Called with every report of the link. May be called in the middle of a step of the handshake. */
  readonly report: (message: WorkerMessage<EthernetInfo>) => void;
  /** Called when the end may have received a burst. */
  readonly received: () => void;
  /** Called once, at the end; with an Error of one line if the link failed. */
  readonly ended: (failure: Error | null) => void;
}

/** A link on the event loop of its thread, the counterpart of `link-loop.ts`: one session after the other. */
export class EventLoopLink implements PortUser {
  readonly #options: EventLoopLinkOptions;
  readonly #counters: Float64Array;
  readonly #poller: Poller;
  readonly #reports: LinkReports<EthernetInfo>;
  readonly #ports: LinkPorts;
  readonly #mtu: LinkMtu;
  #plan: MtuPlan | undefined;
  #session: LinkSession | undefined;
  #info: EthernetInfo | undefined;
  #reminder: NodeJS.Timeout | undefined;
  #scheduled = false;
  #closing = false;
  #failure: Error | null = null;
  #ended = false;

  /** Throws SystemCallError. */
  constructor(options: EventLoopLinkOptions) {
    this.#options = options;
    this.#counters = countersOf(options.counters);
    this.#mtu = new LinkMtu(options.mtu);
    // A handler that throws would end the polling of all other users of the event loop.
    this.#poller = {
      add: (fd, events, handler) =>
        mainPoller.add(fd, events, (reported) => {
          try {
            handler(reported);
          } catch (error) {
            this.failed(error as Error);
          }
          this.wake();
        }),
      modify: (fd, events) => mainPoller.modify(fd, events),
      remove: (fd) => mainPoller.remove(fd),
    };
    this.#reports = new LinkReports(this.#poller, options.report);
    try {
      this.#ports = new LinkPorts(options.port, options.wait, this.#poller, this);
    } catch (error) {
      this.#reports.close();
      throw error;
    }
  }

  /** Opens the port. */
  start(): void {
    this.#ports.start();
  }

  /** Schedules a poll for when the caller has returned to the event loop. */
  wake(): void {
    if (this.#scheduled || this.#ended) return;
    this.#scheduled = true;
    queueMicrotask(() => this.#turn());
  }

  #turn(): void {
    this.#scheduled = false;
    clearTimeout(this.#reminder);
    try {
      for (let bursts = 0; bursts < BURSTS_IN_A_TURN; bursts++) {
        if (this.#closing || this.#failure !== null) {
          this.#finish();
          return;
        }
        this.#ports.leaveLost();
        if (this.#session === undefined || !this.#move(this.#session)) return;
      }
    } catch (error) {
      this.failed(error as Error);
      return;
    }
    this.#scheduled = true;
    setImmediate(() => this.#turn());
  }

  /** Moves a burst in each direction. Returns whether there may be more to do. */
  #move(session: LinkSession): boolean {
    const { path, peer } = session;
    const moved = path.poll();
    session.checkHeaders();
    this.#options.received();
    if (moved) {
      peer.port.expectMore?.();
      return true;
    }
    if (!path.sleep()) return true;
    if (peer.sleepLimit !== -1) this.#reminder = setTimeout(() => this.#overslept(session), peer.sleepLimit);
    return false;
  }

  #overslept(session: LinkSession): void {
    if (session !== this.#session || this.#ended) return;
    session.path.overslept();
    this.wake();
  }

  /** Ends the link soon; without effect if it has ended. */
  close(): void {
    this.#closing = true;
    this.wake();
  }

  failed(error: Error): void {
    this.#failure ??= error;
    this.wake();
  }

  #finish(): void {
    this.#ended = true;
    this.#ports.close();
    try {
      this.leave();
    } catch (error) {
      this.#failure ??= error as Error;
    }
    this.#reports.close();
    this.#options.ended(this.#failure);
  }

  log(text: string): void {
    this.#reports.log(text);
  }

  get port(): Port | undefined {
    return this.#session?.peer.port;
  }

  check(port: Port): void {
    this.#mtu.plan(checkPort(port), null);
  }

  begin(port: Port): void {
    const { end } = this.#options;
    let session: LinkSession;
    try {
      const layout = checkPort(port);
      const plan = this.#mtu.plan(layout, null);
      if (this.#info !== undefined) this.#counters[Counter.reconnects]!++;
      this.leave();
      this.#mtu.begin(plan);
      this.#plan = plan;
      session = new LinkSession(port, {
        poller: this.#poller,
        end: (memory) => end.attach(memory),
        mtu: { own: () => this.#plan!.own, agree: (peer) => this.#agreeOnMtu(peer) },
        counters: this.#counters,
        reports: this.#reports,
        providerGone: (reason, usable) => this.#ports.providerGone(reason, usable),
      });
      end.longest = longestFrame(plan.own.bytes, plan.own);
      const { id, vectors } = port;
      const { outputSectionSize, length: queueLength } = layout;
      this.#info = { id, mtu: this.#mtu.current, outputSectionSize, queueLength, vectors };
    } catch (error) {
      port.close();
      throw error;
    }
    this.#session = session;
    this.#reports.latest({ type: 'up', info: this.#info });
    session.begin();
    this.wake();
  }

  #agreeOnMtu(peer: AnnouncedMtu | null): number {
    this.#mtu.agree(this.#plan!, peer);
    const mtu = this.#mtu.current;
    if (mtu !== this.#info?.mtu) {
      this.#info = { ...this.#info!, mtu };
      this.#reports.latest({ type: 'up', info: this.#info });
    }
    return mtu;
  }

  leave(): void {
    const session = this.#session;
    this.#session = undefined;
    session?.end();
  }
}
