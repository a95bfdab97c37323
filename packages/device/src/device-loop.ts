import { closeFd } from '@ivshmem/linux';
import { descriptorStoreOf, hasProcessEnded } from '@ivshmem/linux/process';
import type { UnixSocket } from '@ivshmem/linux/socket';
import { Reports } from '@ivshmem/linux/thread';
import { EPOLLIN, Epoll } from '@ivshmem/linux/wait';
import {
  countersOf,
  openServerPort,
  type PortEvent,
  PortSeeker,
  restoreServerPort,
  ServerPort,
  ServerTrust,
} from '@ivshmem/transport';
import { Counter } from './counters.ts';
import type { DeviceState, WorkerInput, WorkerMessage } from './device-messages.ts';
import { memoryRegionSize } from './ivshmem/configuration-space.ts';
import type { RegistersInUse } from './ivshmem/device-model.ts';
import { IvshmemDevice } from './ivshmem/ivshmem-device.ts';
import { KeptDevice, type KeptVmm } from './kept-device.ts';
import { InterruptVectors } from './vfio-user/interrupt-vectors.ts';
import type { KeptEventFds } from './vfio-user/kept-eventfds.ts';
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
  readonly #seeker: PortSeeker<ServerPort>;
  /** Whether a later process can continue the device. */
  readonly #lasting: boolean;
  readonly #kept: KeptDevice;
  /** The port of an earlier process. */
  readonly #restored: ServerPort | null;
  #acceptor: VmmAcceptor | undefined;
  #port: ServerPort | undefined;
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
    const store = input.store && descriptorStoreOf(input.store);
    this.#lasting = store !== undefined;
    this.#kept = new KeptDevice(input.options, store, (text) => this.#reports.log(text));
    const trust = new ServerTrust();
    this.#restored = this.#restorePort(trust);
    this.#seeker = new PortSeeker({
      poller: this.#epoll,
      open: (opened) => openServerPort(socketPath, this.#portEpoll, opened, trust),
      use: (port) => this.#use(port),
      failed: (error) => {
        this.#failure = error;
      },
      log: (text) => this.#reports.log(text),
      wait: wait || this.#restored !== null,
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
    if (this.#restored === null) this.#seeker.seek();
    else this.#continue(this.#restored);
    while (!this.#stopping) {
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#lost) this.#abandonPort();
      this.#epoll.wait(-1);
    }
  }

  #listen(): VmmAcceptor {
    const listener = this.#kept.listen(this.#input.options);
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

  #restorePort(trust: ServerTrust): ServerPort | null {
    const store = this.#kept.portStore;
    if (store === undefined) return null;
    const log = (text: string) => this.#reports.log(text);
    const found = restoreServerPort(store, this.#input.options.socketPath, this.#portEpoll, trust, log);
    if (found instanceof ServerPort) return found;
    if (found !== null) log(`the device cannot continue as the peer that it was: ${found}`);
    this.#kept.resume(null);
    return null;
  }

  /** Continues where an earlier process has ended, perhaps with its VMM. */
  #continue(port: ServerPort): void {
    this.#begin(port);
    const vmm = this.#kept.resume(port);
    if (vmm === undefined) this.#setState('waiting');
    else this.#resume(port, vmm);
    this.#acceptor!.start();
    if (port.connected || this.#lost) return;
    // It ended before the earlier process did.
    this.#providerGone = true;
    if (this.#vmm === undefined) this.#seeker.seek();
    this.#setState(this.#vmm === undefined ? 'no-server' : 'orphaned');
  }

  /** Takes over another port, and accepts VMMs. */
  #use(port: ServerPort): void {
    const store = this.#kept.portStore;
    // The one before has lost its host server, and has no VMM.
    this.#port?.close();
    if (store !== undefined) port.keep(store, (text) => this.#reports.log(text));
    this.#begin(port);
    this.#setState('waiting');
    this.#acceptor!.start();
  }

  #begin(port: ServerPort): void {
    const { id, maxPeers, protocol, vectors, layout } = port;
    this.#port = port;
    this.#providerGone = false;
    port.onInterrupt((vector) => this.#vmm?.device.interrupt(vector));
    port.onEvent((event) => this.#follow(event));
    if (this.#up) this.#counters[Counter.reconnects]!++;
    this.#up = true;
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
  #abandonPort(): void {
    this.#lost = false;
    if (this.#vmm !== undefined) {
      const { session } = this.#vmm;
      this.#reports.log(`process ${session.pid} was disconnected: restart its VM`);
      session.close();
      this.#vmm = undefined;
      this.#kept.detach();
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
    let device: IvshmemDevice;
    let kept: KeptEventFds | undefined;
    let vectors: InterruptVectors;
    try {
      kept = this.#kept.attach(socket, port);
      vectors = new InterruptVectors(port.vectors, kept);
      // It holds what the previous VMM wrote, which may have run another VM.
      port.clearOutput();
      device = this.#device(port, vectors, this.#kept.state.registers);
    } catch (error) {
      this.#kept.detach();
      socket.close();
      throw error;
    }
    this.#serve(socket, device, vectors, kept);
  }

  /** Continues with the VMM of an earlier process. */
  #resume(port: ServerPort, { socket, kept, vectors: fds, requestFds }: KeptVmm): void {
    const vectors = new InterruptVectors(port.vectors, kept, fds);
    let device: IvshmemDevice;
    try {
      device = this.#device(port, vectors, { inUse: this.#kept.state.registers });
    } catch (error) {
      this.#reports.log(`${(error as Error).message}: the VM that was connected must be restarted`);
      vectors.clear();
      for (const fd of requestFds) closeFd(fd);
      this.#kept.drop(socket.fd);
      this.#setState('waiting');
      return;
    }
    // The port may have been lost meanwhile.
    this.#settle();
    if (!this.#lost) device.repeat();
    const session = this.#serve(socket, device, vectors, kept, requestFds);
    this.#reports.log(`process ${session.pid} has kept the device over a restart`);
    this.#setState(this.#providerGone ? 'orphaned' : 'attached');
    session.advance();
    this.#kept.state.resumed();
  }

  #device(
    port: ServerPort,
    interrupts: InterruptVectors,
    registers: Uint8Array | RegistersInUse,
  ): IvshmemDevice {
    return new IvshmemDevice(port, {
      isolate: this.#input.options.isolate ?? false,
      counters: this.#counters,
      interrupts,
      registers,
      settle: () => this.#settle(),
    });
  }

  #serve(
    socket: UnixSocket,
    device: IvshmemDevice,
    vectors: InterruptVectors,
    kept: KeptEventFds | undefined,
    requestFds?: number[],
  ): VfioUserSession {
    try {
      const session = new VfioUserSession(socket, this.#epoll, {
        device,
        vectors,
        journal: this.#kept.state.journal,
        kept,
        requestFds,
        attached: (pid) => {
          this.#counters[Counter.attached]!++;
          this.#reports.log(`process ${pid} has attached the device`);
          this.#setState(this.#providerGone ? 'orphaned' : 'attached');
        },
        ended: (pid, violation) => this.#detached(pid, violation),
      });
      this.#vmm = { session, device };
      return session;
    } catch (error) {
      this.#kept.detach();
      throw error;
    }
  }

  #detached(pid: number, violation: string | null): void {
    this.#vmm = undefined;
    this.#kept.detach();
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
    if (this.#lasting) this.#leave();
    else this.#end();
    this.#kept.close();
    this.#reports.close();
    this.#portEpoll.close();
    this.#epoll.close();
  }

  #end(): void {
    this.#acceptor?.close();
    this.#vmm?.session.close();
    this.#port?.close();
  }

  /** Releases what this process has. The VMM and the peers notice nothing until a later process continues. */
  #leave(): void {
    this.#acceptor?.leave();
    this.#vmm?.session.leave();
    const port = this.#port ?? this.#restored;
    port?.detach();
    port?.close();
  }
}
