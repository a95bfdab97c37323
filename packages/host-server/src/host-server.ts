import { EPOLLIN, EPOLLOUT, mainPoller, type Poller, UnixListener, type UnixSocket } from '@ivshmem/linux';
import { encodeInit, encodePeerGone, type MemoryLayout, memoryLayout } from '@ivshmem/transport';
import { BehaviorSubject, type Observable, Subject } from 'rxjs';
import { Client } from './client.ts';
import type { HostServerEvent, Peer } from './events.ts';
import { completeSettings, type HostServerSettings, protocolOf } from './options.ts';
import { createSharedMemory, type SharedMemory } from './shared-memory.ts';

/** Messages that may wait for a client besides those that introduce all peers to it. */
const SLACK = 1024;
/** How long to leave alone what fails for want of descriptors, in ms. */
const RETRY = 100;
/** Connections to accept before others get their turn. */
const BURST = 64;

export interface HostServerOptions extends Partial<HostServerSettings> {
  /** Where sockets are watched. Default: {@link mainPoller}. */
  readonly poller?: Poller;
  /** Called with each event from the first one on. */
  readonly log?: (event: HostServerEvent) => void;
}

/** A running host server. */
export interface HostServer {
  readonly layout: MemoryLayout;
  /** What it was started with, complete. */
  readonly options: HostServerSettings;
  /** Who is connected now, by ID. */
  readonly peers: readonly Peer[];
  /** The same, at once and after each change; their states as of then. Completes when the server is closed. */
  readonly peers$: Observable<readonly Peer[]>;
  readonly events$: Observable<HostServerEvent>;
  /**
   * Disconnects all clients and removes the socket file and the shared memory's name. Clients keep their memory and
   * their eventfds, so their links go on. Doing it again changes nothing.
   */
  close(): void;
  /** Fulfilled when it is closed. */
  readonly closed: Promise<void>;
}

/**
 * Starts a host server. Throws {@link HostServerOptionError} or LayoutError before it has touched the system;
 * SystemCallError, or Error of `node:fs`, where a socket or the memory can't be had. It leaves nothing behind then.
 */
export function createHostServer(options: HostServerOptions = {}): HostServer {
  const { poller = mainPoller, log, ...given } = options;
  return new Server(completeSettings(given), poller, log);
}

class Server implements HostServer {
  readonly options: HostServerSettings;
  readonly layout: MemoryLayout;
  readonly closed: Promise<void>;
  readonly #poller: Poller;
  readonly #memory: SharedMemory;
  readonly #listener: UnixListener;
  readonly #clients = new Map<number, Client>();
  /** IDs that somebody has had, and may still write with. */
  readonly #usedIds = new Set<number>();
  readonly #peers = new BehaviorSubject<readonly Peer[]>([]);
  readonly #events = new Subject<HostServerEvent>();
  readonly #resolveClosed: () => void;
  #acceptTimer: NodeJS.Timeout | undefined;
  #congestionTimer: NodeJS.Timeout | undefined;
  #open = true;

  constructor(settings: HostServerSettings, poller: Poller, log: HostServerOptions['log']) {
    this.#poller = poller;
    // The socket comes first: it shows whether another server with the same settings is alive.
    this.#listener = UnixListener.listen(settings.socketPath, { mode: settings.mode });
    let memory: SharedMemory | undefined;
    try {
      memory = createSharedMemory(settings.sharedMemory, settings.size);
      poller.add(this.#listener.fd, EPOLLIN, () => this.#acceptClients());
    } catch (error) {
      memory?.close();
      this.#listener.close();
      throw error;
    }
    this.#memory = memory;
    this.options = { ...settings, size: memory.size };
    this.layout = memoryLayout(memory.size, settings.maxPeers, settings.outputSectionSize);
    const { promise, resolve } = withResolvers();
    this.closed = promise;
    this.#resolveClosed = resolve;
    if (log !== undefined) this.#events.subscribe(log);
    const { socketPath } = settings;
    this.#events.next({ type: 'listening', socketPath, memory: memory.description, size: memory.size });
  }

  get peers(): readonly Peer[] {
    if (!this.#open) return [];
    const byId = [...this.#clients.values()].sort((a, b) => a.id - b.id);
    return byId.map((client) => this.#describe(client));
  }

  get peers$(): Observable<readonly Peer[]> {
    return this.#peers.asObservable();
  }

  get events$(): Observable<HostServerEvent> {
    return this.#events.asObservable();
  }

  #describe({ id, credentials, since }: Client): Peer {
    return { id, ...credentials, since, state: this.#memory.state(id) };
  }

  #acceptClients(): void {
    for (let i = 0; i < BURST && this.#open; i++) {
      let socket: UnixSocket | null;
      try {
        socket = this.#listener.accept();
      } catch (error) {
        // The connection stays in the backlog, and would be reported again at once.
        this.#poller.modify(this.#listener.fd, 0);
        this.#acceptTimer = setTimeout(() => this.#poller.modify(this.#listener.fd, EPOLLIN), RETRY);
        this.#warn(`connections wait: ${messageOf(error)}`);
        return;
      }
      if (socket === null) return;
      this.#admit(socket);
      this.#disconnectFailed();
    }
  }

  /** Lets a client in, or closes its socket. The order of the messages is part of the protocol. */
  #admit(socket: UnixSocket): void {
    const client = this.#prepare(socket);
    if (client === null) return;
    const { id } = client;
    const others = [...this.#clients.values()];
    this.#clients.set(id, client);
    this.#usedIds.add(id);
    for (const other of others) this.#introduce(client, other);
    for (const other of others) this.#introduce(other, client);
    this.#introduce(client, client);
    this.#events.next({ type: 'peer-joined', peer: this.#describe(client) });
    this.#peers.next(this.peers);
  }

  /** A client that has its ID, cleared memory and its INIT message; null where it was refused. */
  #prepare(socket: UnixSocket): Client | null {
    let client: Client | undefined;
    let credentials = null;
    try {
      credentials = socket.peerCredentials();
      if (!this.options.allow(credentials)) throw new Error(`uid ${credentials.uid} is not allowed`);
      if (!this.#open) throw new Error('the server is closed');
      const id = this.#lowestFreeId();
      // Whoever had the ID may have written to the memory long after disconnecting.
      if (this.#usedIds.has(id)) this.#clear(id);
      const { vectors, maxPeers, outputSectionSize } = this.options;
      client = new Client(id, socket, credentials, { vectors, capacity: 1 + maxPeers * vectors + SLACK });
      const protocol = protocolOf(this.options, id);
      const init = encodeInit({ id, maxPeers, vectors, protocol, outputSectionSize });
      const sent = socket.send(init, [this.#memory.fd]);
      if (sent !== init.length) throw new Error(`its socket took ${sent} bytes of INIT`);
      const watched = client;
      this.#poller.add(socket.fd, client.interest, (events) => this.#handle(watched, events));
      return client;
    } catch (error) {
      client?.close();
      socket.close();
      this.#events.next({ type: 'refused', credentials, reason: messageOf(error) });
      return null;
    }
  }

  #lowestFreeId(): number {
    for (let id = 0; id < this.options.maxPeers; id++) if (!this.#clients.has(id)) return id;
    throw new Error(`all ${this.options.maxPeers} IDs are taken`);
  }

  /** Tells `to` all eventfds of `peer`. */
  #introduce(peer: Client, to: Client): void {
    for (const { bytes, event } of peer.introduction) to.push(bytes, event);
    this.#flush(to);
  }

  #handle(client: Client, events: number): void {
    if ((events & ~EPOLLOUT) === 0) this.#flush(client);
    else if ((events & ~EPOLLOUT) === EPOLLIN) client.failure ??= 'it sent something, which no client does';
    else client.failure ??= 'disconnected';
    this.#disconnectFailed();
  }

  #flush(client: Client): void {
    if (client.flush()) this.#poller.modify(client.socket.fd, client.interest);
    if (client.congested) {
      this.#congestionTimer ??= setTimeout(() => {
        this.#congestionTimer = undefined;
        for (const each of this.#clients.values()) if (each.congested) this.#flush(each);
        this.#disconnectFailed();
      }, RETRY);
    }
  }

  /** Whose failure shows while another's is dealt with is dealt with next. */
  #disconnectFailed(): void {
    for (let failed = this.#findFailed(); failed !== undefined; failed = this.#findFailed()) {
      this.#disconnect(failed);
    }
  }

  #findFailed(): Client | undefined {
    for (const client of this.#clients.values()) if (client.failure !== null) return client;
    return undefined;
  }

  #disconnect(client: Client): void {
    const { id } = client;
    this.#poller.remove(client.socket.fd);
    this.#clients.delete(id);
    client.close();
    try {
      this.#clear(id);
    } catch (error) {
      this.#warn(`output section ${id} is not cleared: ${messageOf(error)}`);
    }
    for (const other of this.#clients.values()) {
      other.push(encodePeerGone(id), null);
      this.#flush(other);
    }
    this.#events.next({ type: 'peer-gone', id, reason: client.failure ?? 'disconnected' });
    this.#peers.next(this.peers);
  }

  /** State 0, and nothing left in the output section. */
  #clear(id: number): void {
    const { outputOffset, outputSize } = this.layout;
    this.#memory.clearState(id);
    this.#memory.clear(outputOffset + id * outputSize, outputSize);
  }

  #warn(text: string): void {
    this.#events.next({ type: 'warning', text });
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    clearTimeout(this.#acceptTimer);
    clearTimeout(this.#congestionTimer);
    this.#poller.remove(this.#listener.fd);
    this.#listener.close();
    for (const client of this.#clients.values()) {
      this.#poller.remove(client.socket.fd);
      client.close();
    }
    this.#clients.clear();
    this.#memory.close();
    this.#peers.next([]);
    this.#peers.complete();
    this.#events.next({ type: 'closed' });
    this.#events.complete();
    this.#resolveClosed();
  }
}

function withResolvers(): { promise: Promise<void>; resolve: () => void } {
  let resolve!: () => void;
  const promise = new Promise<void>((fulfil) => {
    resolve = fulfil;
  });
  return { promise, resolve };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
