import { closeFd } from '@ivshmem/linux';
import { type DescriptorStore, openFilesLimit } from '@ivshmem/linux/process';
import { Acceptor, type PeerCredentials, type UnixListener, type UnixSocket } from '@ivshmem/linux/socket';
import { mainPoller, type Poller } from '@ivshmem/linux/wait';
import { type MemoryLayout, memoryLayout } from '@ivshmem/transport/protocol';
import { defer, EMPTY, map, type Observable, Subject, startWith } from 'rxjs';
import type { Client } from './client.ts';
import { ClientTable } from './client-table.ts';
import { DescriptorBudget, LIMIT_REMEDY } from './descriptor-budget.ts';
import type { HostServerEvent, Peer } from './events.ts';
import { type Foundation, layFoundation, takeClients } from './foundation.ts';
import { KeptDescriptors, socketName } from './kept-descriptors.ts';
import type { LinkState, Tenant } from './link-state.ts';
import { type Observed, openObserved } from './observe.ts';
import { completeSettings, type HostServerSettings, settingsWarnings } from './options.ts';
import { Reception, Refusal, shortage } from './reception.ts';
import { reasonOf } from './remedies.ts';
import type { SharedMemory } from './shared-memory.ts';

/** Descriptors of a server without peers: listener, its reserve, the memory, its lock, and the state. */
const OWN_DESCRIPTORS = 5;

export interface HostServerOptions extends Partial<HostServerSettings> {
  /** Polls the sockets. Default: `mainPoller` of `@ivshmem/linux/wait`. */
  readonly poller?: Poller;
  /** Called with each event, including `listening`. */
  readonly log?: ((event: HostServerEvent) => void) | undefined;
  /** Descriptors to share with other servers of the process. Default: what the process has left now. */
  readonly budget?: DescriptorBudget;
  /** A listening socket to use instead of creating one at `socketPath`. The server takes ownership, also on failure. */
  readonly listener?: UnixListener | undefined;
  /**
   * Keeps everything that peers have of the server, so that they do not notice when its process ends, also by SIGKILL, and is
   * started again with the same settings: see {@link HostServer.suspend}. For this server alone.
   */
  readonly store?: DescriptorStore | undefined;
}

/** A running host server, as returned by {@link createHostServer}. */
export interface HostServer {
  /** Offsets and sizes of the sections. */
  readonly layout: MemoryLayout;
  /** The settings in use, with defaults filled in and the size rounded up. */
  readonly options: HostServerSettings;
  /** The connected peers in the order of their IDs, with their states as of now. */
  readonly peers: readonly Peer[];
  /** {@link peers}, at once and whenever a peer connects or disconnects. Completes when the server is closed. */
  readonly peers$: Observable<readonly Peer[]>;
  /**
   * `listening` for each subscriber, then the events from now on. Completes when the server is closed. Earlier events, such
   * as warnings about the options, go to `log` of the options only.
   */
  readonly events$: Observable<HostServerEvent>;
  /** Number and bytes of messages pending for all peers. */
  readonly waiting: { readonly messages: number; readonly bytes: number };
  /** Returns what a capture needs. The caller owns the descriptors. Throws SystemCallError, or Error of `node:fs`. */
  observe(): Observed;
  /**
   * Disconnects all clients, and removes the socket file and the name of the shared memory. Clients keep their memory and
   * eventfds, so their links go on. Calling it again has no effect.
   */
  close(): void;
  /**
   * Ends the server without disconnecting anyone: the next one with the descriptor store continues. Without a store, the same as
   * {@link close}.
   */
  suspend(): void;
  /** Resolves to null when the server is closed: unlike a link or a device, it does not fail by itself. */
  readonly closed: Promise<Error | null>;
  /** The same as {@link close}. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Starts a host server. Throws OptionError for invalid options, before any system call; SystemCallError, or Error of
 * `node:fs`, if the socket or the memory cannot be created. Leaves nothing behind on failure.
 */
export function createHostServer(options: HostServerOptions = {}): HostServer {
  const {
    poller = mainPoller,
    log,
    budget = DescriptorBudget.ofProcess(),
    listener,
    store,
    ...given
  } = options;
  try {
    return new Server(completeSettings(given), poller, budget, { log, listener, store });
  } catch (error) {
    listener?.close();
    throw error;
  }
}

class Server implements HostServer {
  readonly options: HostServerSettings;
  readonly layout: MemoryLayout;
  readonly closed: Promise<null>;
  readonly #budget: DescriptorBudget;
  readonly #kept: KeptDescriptors;
  readonly #reception: Reception;
  readonly #memory: SharedMemory;
  readonly #state: LinkState;
  readonly #listener: UnixListener;
  readonly #acceptor: Acceptor;
  readonly #table: ClientTable;
  readonly #changes = new Subject<void>();
  readonly #events = new Subject<HostServerEvent>();
  readonly #resolveClosed: (failure: null) => void;
  readonly #listening: HostServerEvent;
  #open = true;

  constructor(
    settings: HostServerSettings,
    poller: Poller,
    budget: DescriptorBudget,
    { log, listener, store }: Pick<HostServerOptions, 'log' | 'listener' | 'store'>,
  ) {
    this.#budget = budget;
    if (!budget.take(OWN_DESCRIPTORS)) throw new Error(shortage(budget, 'the server', OWN_DESCRIPTORS));
    const kept = new KeptDescriptors(store, (text) => this.#warn(text));
    let foundation: Foundation | undefined;
    try {
      foundation = layFoundation(settings, kept, listener);
      this.#acceptor = new Acceptor(foundation.listener, poller, {
        accepted: (socket) => this.#accept(socket),
        rejected: (socket) => this.#reject(socket),
        warn: (text) => this.#warn(text),
      });
    } catch (error) {
      kept.clear();
      foundation?.memory.close();
      foundation?.state.close();
      foundation?.listener.close();
      budget.release(OWN_DESCRIPTORS);
      throw error;
    }
    const { memory, state } = foundation;
    this.#kept = kept;
    this.#listener = foundation.listener;
    this.#memory = memory;
    this.#state = state;
    this.#table = new ClientTable(poller, settings, {
      disconnected: (client) => this.#free(client),
      announced: (client) => this.#reportGone(client),
    });
    const socketPath = foundation.listener.path;
    this.options = { ...settings, socketPath, size: memory.size };
    this.layout = memoryLayout(memory.size, settings.maxPeers, settings.outputSectionSize);
    let resolveClosed: (failure: null) => void = () => {};
    this.closed = new Promise((resolve) => {
      resolveClosed = resolve;
    });
    this.#resolveClosed = resolveClosed;
    this.#listening = { type: 'listening', socketPath, memory: memory.description, size: memory.size };
    this.#reception = new Reception({
      settings: this.options,
      layout: this.layout,
      memory,
      state,
      kept,
      table: this.#table,
      budget,
    });
    if (log !== undefined) this.events$.subscribe(log);
    for (const warning of settingsWarnings(settings)) this.#warn(warning);
    const room = Math.floor(budget.left / (1 + settings.vectors));
    if (room < settings.maxPeers) {
      this.#warn(
        `descriptors for ${room} of ${settings.maxPeers} peers only: RLIMIT_NOFILE is ${budget.limit}: ${LIMIT_REMEDY}`,
      );
    }
    if (foundation.problem !== null) {
      this.#warn(`peers of the process before are disconnected, and get new memory: ${foundation.problem}`);
    }
    if (foundation.isContinued) this.#continue();
  }

  get peers(): readonly Peer[] {
    if (!this.#open) return [];
    return this.#table.clients.map((client) => this.#describe(client));
  }

  get peers$(): Observable<readonly Peer[]> {
    return defer(() =>
      this.#changes.pipe(
        startWith(undefined),
        map(() => this.peers),
      ),
    );
  }

  get events$(): Observable<HostServerEvent> {
    return defer(() => (this.#open ? this.#events.pipe(startWith(this.#listening)) : EMPTY));
  }

  get waiting(): { messages: number; bytes: number } {
    return this.#table.waiting;
  }

  observe(): Observed {
    return openObserved(this.#memory.fd, this.#table.clients);
  }

  #describe({ id, credentials, since, waiting }: Client): Peer {
    return { id, ...credentials, since, state: this.#memory.state(id), waiting: waiting.messages };
  }

  /** Serves the clients of an earlier process. */
  #continue(): void {
    const { clients, lost, accepted } = takeClients(this.options, this.#kept, this.#state);
    const gone: (Tenant & { id: number; reason: string })[] = lost.map((client) => {
      this.#free(client);
      return { ...client, reason: 'disconnected during a restart of the server' };
    });
    for (const parts of clients) {
      const needed = 1 + parts.events.length;
      const reason = this.#budget.take(needed) ? null : shortage(this.#budget, 'a peer', needed);
      if (reason === null) {
        this.#table.restore(this.#reception.restore(parts));
        continue;
      }
      this.#free(parts);
      parts.socket.close();
      for (const event of parts.events) closeFd(event);
      gone.push({ ...parts, reason });
    }
    // Those whose departure the earlier process has not completed.
    for (let id = 0; id < this.options.maxPeers; id++) {
      if (this.#state.isUsed(id) && this.#state.serial(id) === 0) this.#free({ id, serial: 0 });
    }
    this.#events.next({ type: 'continued', peers: this.#table.size });
    // The caller can see these events, too.
    queueMicrotask(() => {
      for (const { id, since, reason } of gone) {
        this.#events.next({ type: 'peer-gone', id, cause: 'disconnected', reason, since });
      }
      if (this.#open) this.#table.catchUp();
      for (const { serial, socket } of accepted) {
        if (this.#open) this.#accept(socket, serial);
        else socket.close();
      }
    });
  }

  /** Connects a client, or closes its socket and reports why. `stored`: its serial if an earlier process has accepted it. */
  #accept(socket: UnixSocket, stored?: number): void {
    let credentials: PeerCredentials | null = null;
    let client: Client;
    try {
      credentials = socket.peerCredentials();
      client = this.#reception.admit(socket, credentials, stored);
    } catch (error) {
      if (stored !== undefined) this.#kept.remove(socketName(stored));
      socket.close();
      const cause = error instanceof Refusal ? error.refusal : 'error';
      this.#events.next({ type: 'refused', credentials, cause, reason: reasonOf(error) });
      return;
    }
    this.#events.next({ type: 'peer-joined', peer: this.#describe(client) });
    this.#changes.next();
    this.#table.disconnectFailed();
  }

  /** Rejects a client for which accept(2) found no descriptor, although the budget may have some. */
  #reject(socket: UnixSocket): void {
    const credentials = socket.peerCredentials();
    socket.close();
    const reason = `the process is out of descriptors, RLIMIT_NOFILE is ${openFilesLimit().soft}: ${LIMIT_REMEDY}`;
    this.#events.next({ type: 'refused', credentials, cause: 'descriptors', reason });
  }

  #free(client: Pick<Tenant, 'serial'> & { readonly id: number }): void {
    try {
      this.#reception.free(client);
    } catch (error) {
      this.#warn(`state of peer ${client.id} not cleared: ${reasonOf(error)}`);
    }
  }

  #reportGone({ id, failure, since }: Client): void {
    this.#events.next({ type: 'peer-gone', id, ...failure!, since });
    this.#changes.next();
  }

  #warn(text: string): void {
    this.#events.next({ type: 'warning', text });
  }

  close(): void {
    this.#end(false);
  }

  suspend(): void {
    this.#end(this.#kept.exists);
  }

  #end(isKept: boolean): void {
    if (!this.#open) return;
    this.#open = false;
    const peers = this.#table.size;
    if (!isKept) this.#kept.clear();
    this.#acceptor.close();
    if (isKept) this.#listener.leave();
    else this.#listener.close();
    this.#table.close();
    this.#memory.close({ isKept });
    this.#state.close();
    this.#budget.release(OWN_DESCRIPTORS);
    this.#changes.next();
    this.#changes.complete();
    this.#events.next(isKept ? { type: 'suspended', peers } : { type: 'closed' });
    this.#events.complete();
    this.#resolveClosed(null);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}
