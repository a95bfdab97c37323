import { fstatSync, statSync } from 'node:fs';
import { closeFd } from '@ivshmem/linux';
import type { DescriptorStore } from '@ivshmem/linux/process';
import { UnixListener, UnixSocket } from '@ivshmem/linux/socket';
import type { HostPort } from '@ivshmem/transport';
import type { DeviceOptions } from './device-options.ts';
import { DeviceState } from './device-state.ts';
import { type EventFdStore, KeptEventFds } from './vfio-user/kept-eventfds.ts';

/** After this many processes have ended while they continued with a VMM, it is disconnected. */
const MAX_ATTEMPTS = 5;

/** A VMM that an earlier process has served. */
export interface KeptVmm {
  readonly socket: UnixSocket;
  readonly kept: KeptEventFds;
  /** By vector, see InterruptVectors. */
  readonly vectors: (number | undefined)[];
  readonly requestFds: number[];
}

/**
 * What a device keeps for the process after this one, in a descriptor store: its state, the listening socket, and the socket
 * and eventfds of the VMM. Without a store, nothing outlives the process.
 */
export class KeptDevice {
  readonly state: DeviceState;
  readonly #store: DescriptorStore | undefined;
  readonly #vmm: DescriptorStore | undefined;
  readonly #log: (text: string) => void;
  readonly #listenerFd: number | undefined;
  #stores = true;

  /** Takes what was left in the store, unless it cannot be used; `log` says so. Throws SystemCallError. */
  constructor(options: DeviceOptions, store: DescriptorStore | undefined, log: (text: string) => void) {
    this.#store = store;
    this.#vmm = store?.scope('vmm');
    this.#log = log;
    // Also for a device that starts anew: the service manager holds the socket, so no other can have its path.
    this.#listenerFd = store?.take('listener');
    const fd = store?.take('state');
    const found = fd === undefined ? undefined : DeviceState.resume(fd, options);
    if (found instanceof DeviceState) {
      this.state = found;
      return;
    }
    if (found !== undefined) {
      log(`${found}: the device starts anew; if a VM was connected, restart it`);
    }
    this.#attempt(() => store?.discardLeft());
    this.state = DeviceState.create(options);
    this.#put(store, 'state', this.state.fd);
  }

  /** The store for the device's port. */
  get portStore(): DescriptorStore | undefined {
    return this.#store?.scope('port');
  }

  /** Listens at the socket of the device, or continues to. Throws SystemCallError. */
  listen({ vfioUser, mode = 0o600, group }: DeviceOptions): UnixListener {
    const fd = this.#listenerFd;
    if (fd !== undefined) {
      const listener = this.#restoreListener(fd);
      if (listener !== undefined && listener.path === vfioUser) {
        const file = statSync(vfioUser);
        if ((file.mode & 0o777) === mode && (group === undefined || file.gid === group)) return listener;
      }
      listener?.close();
      this.#attempt(() => this.#store!.remove('listener'));
    }
    const listener = UnixListener.listen(vfioUser, { mode, group });
    this.#put(this.#store, 'listener', listener.fd);
    return listener;
  }

  #restoreListener(fd: number): UnixListener | undefined {
    try {
      return UnixListener.restore(fd);
    } catch (error) {
      this.#log(`${(error as Error).message}: the device listens anew`);
      return undefined;
    }
  }

  /** A VMM has connected: keeps its socket. Returns where to keep its eventfds; undefined without a store. */
  attach(socket: UnixSocket, port: HostPort): KeptEventFds | undefined {
    const client = this.state.nextClient();
    if (this.#vmm === undefined) return undefined;
    this.#put(this.#vmm, socketName(client), socket.fd);
    this.state.begin(client, fstatSync(port.memoryFd, { bigint: true }), port.id);
    return this.#eventFds();
  }

  /** The VMM is gone. */
  detach(): void {
    const { client } = this.state;
    if (client === 0) return;
    this.state.end();
    this.#attempt(() => this.#vmm?.remove(socketName(client)));
  }

  /** The VMM of an earlier process, if it was connected to this port. Otherwise it is disconnected. */
  resume(port: HostPort | null): KeptVmm | undefined {
    const vmm = this.#vmm;
    const { client } = this.state;
    if (vmm === undefined || client === 0) {
      this.#attempt(() => vmm?.discardLeft());
      return undefined;
    }
    const fd = vmm.take(socketName(client));
    const problem = this.#problem(fd, port);
    if (port === null || problem !== null) {
      this.#log(`${problem}: the VM that was connected must be restarted`);
      this.drop(fd);
      return undefined;
    }
    const kept = this.#eventFds();
    const { vectors, request } = kept.resume(port.vectors);
    this.#attempt(() => vmm.discardLeft());
    return { socket: new UnixSocket(fd!), kept, vectors, requestFds: request };
  }

  #problem(fd: number | undefined, port: HostPort | null): string | null {
    if (port === null) return 'the device has left its host server';
    if (fd === undefined || !fstatSync(fd).isSocket()) return 'the socket of the VMM was not left';
    if (!this.state.isOf(fstatSync(port.memoryFd, { bigint: true }), port.id)) {
      return 'the device has another memory';
    }
    const attempts = this.state.attempt();
    return attempts > MAX_ATTEMPTS ? `${attempts - 1} processes in a row have ended` : null;
  }

  /** Disconnects the VMM of an earlier process. */
  drop(fd: number | undefined): void {
    if (fd !== undefined) {
      using socket = new UnixSocket(fd);
      socket.shutdown();
    }
    this.detach();
    this.#attempt(() => this.#vmm?.discardLeft());
  }

  #eventFds(): KeptEventFds {
    const vmm = this.#vmm!;
    const store: EventFdStore = {
      take: (name) => vmm.take(name),
      put: (name, fd) => this.#put(vmm, name, fd),
      remove: (name) => this.#attempt(() => vmm.remove(name)),
    };
    return new KeptEventFds(store, this.state.journal);
  }

  #put(store: DescriptorStore | undefined, name: string, fd: number): void {
    if (store !== undefined && this.#stores) this.#attempt(() => store.put(name, fd));
  }

  /** Calls the service manager. If that fails, the device works on, but no later process can continue it. */
  #attempt(call: () => void): void {
    try {
      call();
    } catch (error) {
      if (this.#stores)
        this.#log(`${(error as Error).message}: a restart of this process will disconnect the VM`);
      this.#stores = false;
      this.state?.spoil();
    }
  }

  /** Releases what this process has, and has not taken. */
  close(): void {
    this.state.close();
    for (const store of [this.#store, this.#vmm, this.portStore]) {
      for (const name of store?.left ?? []) closeFd(store!.take(name)!);
    }
  }
}

const socketName = (client: number) => `socket.${client}`;
