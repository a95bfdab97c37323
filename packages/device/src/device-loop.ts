import { hasProcessEnded } from '@ivshmem/linux/process';
import { UnixListener, type UnixSocket } from '@ivshmem/linux/socket';
import { Reports } from '@ivshmem/linux/thread';
import { EPOLLIN, Epoll } from '@ivshmem/linux/wait';
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
import { IvshmemDevice } from './ivshmem/ivshmem-device.ts';
import { InterruptVectors } from './vfio-user/interrupt-vectors.ts';
import { VfioUserSession } from './vfio-user/session.ts';
import { type Obstacle, VmmAcceptor } from './vmm-acceptor.ts';

/** Delay between the end of a host server and the first attempt to connect to its successor, in ms. */
const RETRY = 100;

/**
 * The thread of a device: one port of a host server, one VMM at a time.
 *
 * A doorbell of the guest: VfioUserSession reads the request, RequestHandler decodes it, IvshmemDevice.writeBar passes it
 * to the model and on to HostPort.ring. An interrupt: HostPort calls IvshmemDevice.interrupt, which signals the VMM's eventfd.
 */
export class DeviceLoop {
  readonly #input: WorkerInput;
  readonly #reports: Reports<WorkerMessage>;
  readonly #counters: Float64Array;
  readonly #epoll = new Epoll();
  /** The port's descriptors. They are polled before each access of the guest as well, which keeps events in order. */
  readonly #portEpoll = new Epoll();
  readonly #seeker: PortSeeker<HostPort>;
  #acceptor: VmmAcceptor | undefined;
  #port: HostPort | undefined;
  /** From its connection on, also before it has sent VERSION. */
  #vmm: { readonly session: VfioUserSession; readonly device: IvshmemDevice } | undefined;
  #state: DeviceState | undefined;
  #failure: Error | undefined;
  #up = false;
  #providerGone = false;
  /** The port must not be used any more. */
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
    this.#epoll.add(stopFd, EPOLLIN, () => {
      this.#stopping = true;
    });
    this.#epoll.add(this.#portEpoll.fd, EPOLLIN, () => this.#settle());
  }

  /** Runs the device until it is stopped. Throws an Error of one line if it cannot start or continue. */
  run(): void {
    // Before it joins the host server: without a socket, it should not take a place there.
    this.#acceptor = this.#listen();
    this.#seeker.seek();
    while (!this.#stopping) {
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#lost) this.#leave();
      this.#epoll.wait(-1);
    }
  }

  #listen(): VmmAcceptor {
    const { vfioUser, mode = 0o600, group } = this.#input.options;
    const listener = UnixListener.listen(vfioUser, { mode, group });
    try {
      return new VmmAcceptor(listener, this.#epoll, {
        obstacle: () => this.#obstacle(),
        attach: (socket) => this.#attach(socket),
        rejected: (reason) => {
          this.#counters[Counter.refused]!++;
          this.#reports.log(`a VMM was rejected: ${reason}`);
        },
        log: (text) => this.#reports.log(text),
      });
    } catch (error) {
      listener.close();
      throw error;
    }
  }

  /** Handles all pending events of the port. */
  #settle(): void {
    this.#portEpoll.wait(0);
  }

  /** Takes over a port, and accepts VMMs. */
  #begin(port: HostPort): void {
    const { id, maxPeers, protocol, vectors, layout } = port;
    // The one before has lost its host server, and has no VMM.
    this.#port?.close();
    this.#port = port;
    this.#providerGone = false;
    port.onInterrupt((vector) => this.#vmm?.device.interrupt(vector));
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
    this.#acceptor!.start();
    this.#up = true;
  }

  #follow(event: PortEvent): void {
    if (event.type !== 'provider-gone') return;
    this.#providerGone = true;
    if (!event.usable) {
      this.#reports.log(`${event.reason}; the device connects again`);
      // Later, in run(): an access of the guest may be in progress.
      this.#lost = true;
    } else if (this.#vmm === undefined) {
      this.#reports.log(`${event.reason}; no VMM is accepted until it is back`);
      this.#seeker.seek(RETRY);
      this.#setState('no-server');
    } else {
      this.#reports.log(
        `${event.reason}; the VMM keeps its memory and its current peers; restart its VM to connect it to new ones`,
      );
      this.#setState('orphaned');
    }
  }

  /** Closes a port that must not be used any more, disconnects the VMM, which has mapped its memory, and seeks another port. */
  #leave(): void {
    this.#lost = false;
    if (this.#vmm !== undefined) {
      const { session } = this.#vmm;
      this.#reports.log(`process ${session.pid} was disconnected: restart its VM`);
      session.close();
      this.#vmm = undefined;
    }
    this.#port?.close();
    this.#port = undefined;
    this.#setState('no-server');
    this.#seeker.seek();
  }

  /** Why a VMM cannot attach the device now; null if it can. */
  #obstacle(): Obstacle | null {
    // The VMM or the host server may have gone without this thread having read it yet.
    this.#vmm?.session.advance();
    this.#settle();
    if (this.#vmm !== undefined) {
      const { pid } = this.#vmm.session;
      const text = `the device belongs to process ${pid}; start one device for each VM`;
      return { text, passes: hasProcessEnded(pid) };
    }
    const gone = this.#port === undefined || this.#providerGone;
    return gone ? { text: 'the host server is gone', passes: true } : null;
  }

  #attach(socket: UnixSocket): void {
    const port = this.#port!;
    const vectors = new InterruptVectors(port.vectors);
    let device: IvshmemDevice;
    try {
      // It holds what the previous VMM wrote, which may have run another VM.
      port.clearOutput();
      device = new IvshmemDevice(port, {
        isolate: this.#input.options.isolate ?? false,
        counters: this.#counters,
        interrupts: vectors,
        settle: () => this.#settle(),
      });
    } catch (error) {
      socket.close();
      throw error;
    }
    const session = new VfioUserSession(socket, this.#epoll, {
      device,
      vectors,
      attached: (pid) => {
        this.#counters[Counter.attached]!++;
        this.#reports.log(`process ${pid} has attached the device`);
        this.#setState(this.#providerGone ? 'orphaned' : 'attached');
      },
      ended: (pid, violation) => this.#detached(pid, violation),
    });
    this.#vmm = { session, device };
  }

  #detached(pid: number, violation: string | null): void {
    this.#vmm = undefined;
    if (violation !== null) this.#counters[Counter.violations]!++;
    const why = violation === null ? 'is gone' : `was disconnected: ${violation}`;
    this.#reports.log(`process ${pid} ${why}; the device waits for the next VMM`);
    this.#setState(this.#providerGone ? 'no-server' : 'waiting');
    // Without a VMM, there is no use for the port of a host server that has ended.
    if (this.#providerGone) this.#seeker.seek();
  }

  #setState(state: DeviceState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#reports.latest({ type: 'state', state });
  }

  [Symbol.dispose](): void {
    this.#seeker.close();
    this.#acceptor?.close();
    this.#vmm?.session.close();
    this.#port?.close();
    this.#reports.close();
    this.#portEpoll.close();
    this.#epoll.close();
  }
}
