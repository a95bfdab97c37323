import { hasProcessEnded } from '@ivshmem/linux/process';
import { UnixListener, type UnixSocket } from '@ivshmem/linux/socket';
import { Reports } from '@ivshmem/linux/thread';
import { EPOLLIN, Epoll, Timer } from '@ivshmem/linux/wait';
import {
  countersOf,
  type HostPort,
  openServerPort,
  type PortEvent,
  PortSeeker,
  ServerTrust,
} from '@ivshmem/transport';
import { Counter } from './counters.ts';
import type { DeviceState, WorkerInput, WorkerMessage } from './device-messages.ts';
import { memoryRegionSize } from './ivshmem/configuration-space.ts';
import { VfioUserSession } from './vfio-user/session.ts';
import { VfioUserDevice } from './vfio-user-device.ts';

/** How long after the end of a host server its successor is looked for, in ms. */
const RETRY = 100;
/** How long to let clients wait while there are no descriptors for them, in ms. */
const ACCEPT_PAUSE = 1000;
/**
 * How long a client waits for the device of a process that has ended, or for the host server to come back, in ms; and
 * how often to look. io_uring closes the socket of a QEMU that was killed up to a second late.
 */
const NEWCOMER_PATIENCE = 2000;
const NEWCOMER_INTERVAL = 50;
/** Clients that are accepted, or rejected, before other descriptors get their turn. */
const CLIENTS_AT_ONCE = 16;

/** What a device does, in the thread that does nothing else: one port of the host server, one VMM at a time. */
export class DeviceLoop {
  readonly #input: WorkerInput;
  readonly #reports: Reports<WorkerMessage>;
  readonly #counters: Float64Array;
  readonly #epoll = new Epoll();
  /** What belongs to the port, apart: it is looked at before each access of the guest, so that things keep their order. */
  readonly #portEpoll = new Epoll();
  readonly #seeker: PortSeeker<HostPort>;
  readonly #acceptTimer: Timer;
  readonly #newcomerTimer: Timer;
  /** A client that waits for the device, until a time of performance.now(). */
  #newcomer: { readonly socket: UnixSocket; readonly until: number } | undefined;
  #listener: UnixListener | undefined;
  #port: HostPort | undefined;
  #session: VfioUserSession | undefined;
  #state: DeviceState | undefined;
  #failure: Error | undefined;
  #up = false;
  #providerGone = false;
  /** The port may not be used any more. */
  #lost = false;
  #stopping = false;

  constructor(input: WorkerInput, stopFd: number, tell: (message: WorkerMessage) => void) {
    this.#input = input;
    this.#reports = new Reports(this.#epoll, tell);
    this.#counters = countersOf(input.counters);
    const { socketPath, wait = false } = input.options;
    const trust = new ServerTrust();
    this.#seeker = new PortSeeker({
      poller: this.#epoll,
      open: (opened) => openServerPort(socketPath, this.#portEpoll, opened, trust),
      use: (port) => this.#begin(port),
      failed: (error) => {
        this.#failure = error;
      },
      log: (text) => this.#reports.log(text),
      wait,
    });
    this.#acceptTimer = new Timer(this.#epoll, () => this.#accept());
    this.#newcomerTimer = new Timer(this.#epoll, () => this.#lookAfterNewcomer());
    this.#epoll.add(stopFd, EPOLLIN, () => {
      this.#stopping = true;
    });
    this.#epoll.add(this.#portEpoll.fd, EPOLLIN, () => this.#settle());
  }

  /** Runs the device until it is stopped. Throws what makes it impossible to begin or to go on, an Error of one line. */
  run(): void {
    const { vfioUser, mode = 0o600, group } = this.#input.options;
    // First of all: who cannot listen should not join the others.
    this.#listener = UnixListener.listen(vfioUser, { mode, group });
    this.#seeker.seek();
    while (!this.#stopping) {
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#lost) this.#leave();
      this.#epoll.wait(-1);
    }
  }

  #settle(): void {
    this.#portEpoll.wait(0);
  }

  /** Takes over a port and lets VMMs in. */
  #begin(port: HostPort): void {
    const { id, maxPeers, protocol, vectors, layout } = port;
    // The one before has no provider, and no VMM, any more.
    this.#port?.close();
    this.#port = port;
    this.#providerGone = false;
    port.onInterrupt((vector) => {
      if (this.#session !== undefined) this.#session.device.interrupt(vector);
    });
    port.onEvent((event) => this.#follow(event));
    if (this.#up) this.#counters[Counter.reconnects]!++;
    this.#reports.latest({
      type: 'up',
      info: {
        id,
        maxPeers,
        protocol,
        vectors,
        memorySize: layout.size,
        bar2Size: memoryRegionSize(layout),
        outputSectionSize: layout.outputSectionSize,
      },
    });
    this.#setState('waiting');
    if (!this.#up) this.#epoll.add(this.#listener!.fd, EPOLLIN, () => this.#accept());
    this.#up = true;
  }

  #follow(event: PortEvent): void {
    if (event.type !== 'provider-gone') return;
    this.#providerGone = true;
    if (!event.usable) {
      this.#reports.log(`${event.reason}; the device joins anew`);
      // Not now: an access of the guest may be under way.
      this.#lost = true;
    } else if (this.#session === undefined) {
      this.#reports.log(`${event.reason}; no VMM is accepted until it is back`);
      this.#seeker.seek(RETRY);
      this.#setState('no-server');
    } else {
      this.#reports.log(
        `${event.reason}; the VMM keeps its memory and the peers that are there, but will see no new ones until it is restarted`,
      );
      this.#setState('orphaned');
    }
  }

  /** Leaves a port that may not be used any more, as a VMM that has mapped its memory must, and looks for another. */
  #leave(): void {
    this.#lost = false;
    if (this.#session !== undefined) {
      this.#reports.log(`process ${this.#session.pid} was disconnected: restart its VM`);
      this.#session.close();
      this.#session = undefined;
    }
    this.#port?.close();
    this.#port = undefined;
    this.#setState('no-server');
    this.#seeker.seek();
  }

  #accept(): void {
    this.#acceptTimer.cancel();
    // It came first.
    this.#lookAfterNewcomer();
    try {
      for (let clients = 0; clients < CLIENTS_AT_ONCE; clients++) {
        const socket = this.#listener!.accept();
        if (socket === null) break;
        this.#admit(socket, performance.now() + NEWCOMER_PATIENCE);
      }
      this.#epoll.modify(this.#listener!.fd, EPOLLIN);
    } catch (error) {
      this.#reports.log(`${(error as Error).message}; trying again`);
      this.#epoll.modify(this.#listener!.fd, 0);
      this.#acceptTimer.after(ACCEPT_PAUSE);
    }
  }

  /** Gives a client the device, has it wait for that until a time, or rejects it. */
  #admit(socket: UnixSocket, until: number): void {
    // Its predecessor may have gone without that having been noticed.
    this.#session?.advance();
    const obstacle = this.#obstacle();
    if (obstacle === null) {
      this.#attach(socket);
    } else if (obstacle.passes && this.#newcomer === undefined && performance.now() < until) {
      this.#newcomer = { socket, until };
      this.#newcomerTimer.after(NEWCOMER_INTERVAL);
    } else {
      socket.close();
      this.#counters[Counter.refused]!++;
      this.#reports.log(`a VMM was rejected: ${obstacle.text}`);
    }
  }

  #lookAfterNewcomer(): void {
    const newcomer = this.#newcomer;
    if (newcomer === undefined) return;
    this.#newcomer = undefined;
    try {
      this.#admit(newcomer.socket, newcomer.until);
    } catch (error) {
      this.#reports.log((error as Error).message);
    }
  }

  /** Why a VMM cannot attach the device, and whether that is to pass soon; null if it can. */
  #obstacle(): { readonly text: string; readonly passes: boolean } | null {
    if (this.#session !== undefined) {
      const { pid } = this.#session;
      const text = `the device belongs to process ${pid}; start one device for each VM`;
      return { text, passes: hasProcessEnded(pid) };
    }
    const gone = this.#port === undefined || this.#providerGone;
    return gone ? { text: 'the host server is gone', passes: true } : null;
  }

  #attach(socket: UnixSocket): void {
    const device = new VfioUserDevice(this.#port!, {
      isolate: this.#input.options.isolate ?? false,
      counters: this.#counters,
      settle: () => this.#settle(),
    });
    this.#session = new VfioUserSession(socket, this.#epoll, device, {
      attached: (pid) => {
        this.#counters[Counter.attached]!++;
        this.#reports.log(`process ${pid} has attached the device`);
        this.#setState(this.#providerGone ? 'orphaned' : 'attached');
      },
      ended: (pid, violation) => {
        this.#session = undefined;
        if (violation !== null) this.#counters[Counter.violations]!++;
        const why = violation === null ? 'is gone' : `was disconnected: ${violation}`;
        this.#reports.log(`process ${pid} ${why}; the device waits for the next VMM`);
        this.#release();
      },
    });
  }

  /** Without a VMM, nothing keeps the port of a server that has gone. */
  #release(): void {
    this.#setState(this.#providerGone ? 'no-server' : 'waiting');
    if (this.#providerGone) this.#seeker.seek();
  }

  #setState(state: DeviceState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#reports.latest({ type: 'state', state });
  }

  [Symbol.dispose](): void {
    this.#seeker.close();
    this.#newcomer?.socket.close();
    this.#session?.close();
    this.#port?.close();
    this.#listener?.close();
    this.#acceptTimer.close();
    this.#newcomerTimer.close();
    this.#reports.close();
    this.#portEpoll.close();
    this.#epoll.close();
  }
}
