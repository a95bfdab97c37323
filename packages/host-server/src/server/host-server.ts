import { openFilesLimit } from '@ivshmem/linux/process';
import { Acceptor, type PeerCredentials, UnixListener, type UnixSocket } from '@ivshmem/linux/socket';
import { mainPoller, type Poller } from '@ivshmem/linux/wait';
import { encodeInit, type MemoryLayout, memoryLayout } from '@ivshmem/transport/protocol';
import { defer, EMPTY, map, type Observable, Subject, startWith } from 'rxjs';
import { Client, SENT_DATA } from './client.ts';
import { ClientTable } from './client-table.ts';
import { DescriptorBudget, LIMIT_REMEDY } from './descriptor-budget.ts';
import type { HostServerEvent, Peer, RefusalCause } from './events.ts';
import { completeSettings, type HostServerSettings, protocolOf, settingsWarnings } from './options.ts';
import { reasonOf } from './remedies.ts';
import { SharedFd } from './shared-fd.ts';
import { createSharedMemory, type SharedMemory } from './shared-memory.ts';

/** Messages that may be pending for a client in addition to those that announce all peers to it. */
const SLACK = 1024;
/** Descriptors of a server without peers: listener, its reserve, the memory, and the lock of a POSIX object. */
const OWN_DESCRIPTORS = 4;

export interface HostServerOptions extends Partial<HostServerSettings> {
  /** Polls the sockets. Default: `mainPoller` of `@ivshmem/linux/wait`. */
  readonly poller?: Poller;
  /** Called with each event, including `listening`. */
  readonly log?: ((event: HostServerEvent) => void) | undefined;
  /** Descriptors to share with other servers of the process. Default: what the process has left now. */
  readonly budget?: DescriptorBudget;
  /** A listening socket to use instead of creating one at `socketPath`. The server takes ownership, also on failure. */
  readonly listener?: UnixListener | undefined;
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
  /**
   * Disconnects all clients, and removes the socket file and the name of the shared memory. Clients keep their memory and
   * eventfds, so their links go on. Calling it again has no effect.
   */
  close(): void;
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
  const { poller = mainPoller, log, budget, listener, ...given } = options;
  try {
    const settings = completeSettings(given);
    return new Server(settings, poller, log, budget ?? DescriptorBudget.ofProcess(), listener);
  } catch (error) {
    listener?.close();
    throw error;
  }
}

/** Why a client is rejected. */
class Refusal extends Error {
  readonly refusal: RefusalCause;
  constructor(refusal: RefusalCause, reason: string) {
    super(reason);
    this.refusal = refusal;
  }
}

class Server implements HostServer {
  readonly options: HostServerSettings;
  readonly layout: MemoryLayout;
  readonly closed: Promise<null>;
  readonly #budget: DescriptorBudget;
  readonly #memory: SharedMemory;
  /** The memory's descriptor, to attach to INIT. Never released: `#memory` closes it. */
  readonly #memoryFd: SharedFd;
  readonly #listener: UnixListener;
  readonly #acceptor: Acceptor;
  readonly #table: ClientTable;
  /** IDs that have been in use. Peers that have left can still write to the memory. */
  readonly #usedIds = new Set<number>();
  readonly #changes = new Subject<void>();
  readonly #events = new Subject<HostServerEvent>();
  readonly #resolveClosed: (failure: null) => void;
  readonly #listening: HostServerEvent;
  #open = true;

  constructor(
    settings: HostServerSettings,
    poller: Poller,
    log: HostServerOptions['log'],
    budget: DescriptorBudget,
    listener: UnixListener | undefined,
  ) {
    this.#budget = budget;
    if (!budget.take(OWN_DESCRIPTORS)) throw new Error(shortage(budget, 'the server', OWN_DESCRIPTORS));
    // The socket comes first: bind(2) shows whether another server with the same settings is running.
    let memory: SharedMemory | undefined;
    try {
      const { socketPath, mode, group } = settings;
      // The kernel caps the backlog at net.core.somaxconn.
      listener ??= UnixListener.listen(socketPath, { mode, group, backlog: 4096 });
      memory = createSharedMemory(settings.sharedMemory, settings.size);
      this.#acceptor = new Acceptor(listener, poller, {
        accepted: (socket) => this.#accept(socket),
        rejected: (socket) => this.#reject(socket),
        warn: (text) => this.#warn(text),
      });
    } catch (error) {
      memory?.close();
      listener?.close();
      budget.release(OWN_DESCRIPTORS);
      throw error;
    }
    this.#listener = listener;
    this.#memory = memory;
    this.#memoryFd = new SharedFd(memory.fd);
    this.#table = new ClientTable(poller, settings, {
      disconnected: ({ id }) => this.#clearState(id),
      announced: (client) => this.#reportGone(client),
    });
    this.options = { ...settings, socketPath: listener.path, size: memory.size };
    this.layout = memoryLayout(memory.size, settings.maxPeers, settings.outputSectionSize);
    let resolveClosed: (failure: null) => void = () => {};
    this.closed = new Promise((resolve) => {
      resolveClosed = resolve;
    });
    this.#resolveClosed = resolveClosed;
    this.#listening = {
      type: 'listening',
      socketPath: listener.path,
      memory: memory.description,
      size: memory.size,
    };
    if (log !== undefined) this.events$.subscribe(log);
    for (const warning of settingsWarnings(settings)) this.#warn(warning);
    const room = Math.floor(budget.left / (1 + settings.vectors));
    if (room < settings.maxPeers) {
      this.#warn(
        `descriptors for ${room} of ${settings.maxPeers} peers only: RLIMIT_NOFILE is ${budget.limit}: ${LIMIT_REMEDY}`,
      );
    }
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

  #describe({ id, credentials, since, waiting }: Client): Peer {
    return { id, ...credentials, since, state: this.#memory.state(id), waiting: waiting.messages };
  }

  /** Connects a client, or closes its socket and reports why. */
  #accept(socket: UnixSocket): void {
    let credentials = null;
    let taken = 0;
    let client: Client | undefined;
    try {
      credentials = socket.peerCredentials();
      this.#checkAccess(socket, credentials);
      const { vectors, maxPeers, outputSectionSize } = this.options;
      const id = this.#table.lowestFreeId();
      if (id === null) throw new Refusal('no-free-id', `all ${maxPeers} IDs are taken`);
      const needed = 1 + vectors;
      if (!this.#budget.take(needed)) {
        throw new Refusal('descriptors', shortage(this.#budget, 'a peer', needed));
      }
      taken = needed;
      this.#clearFor(id);
      const capacity = 1 + maxPeers * vectors + SLACK;
      client = new Client(id, socket, credentials, { vectors, capacity }, this.#budget);
      taken = 0;
      const protocol = protocolOf(this.options, id);
      this.#table.add(
        client,
        encodeInit({ id, maxPeers, vectors, protocol, outputSectionSize }),
        this.#memoryFd,
      );
      this.#usedIds.add(id);
    } catch (error) {
      client?.close();
      socket.close();
      this.#budget.release(taken);
      const cause = error instanceof Refusal ? error.refusal : 'error';
      this.#events.next({ type: 'refused', credentials, cause, reason: reasonOf(error) });
      return;
    }
    this.#events.next({ type: 'peer-joined', peer: this.#describe(client) });
    this.#changes.next();
    this.#table.disconnectFailed();
  }

  #checkAccess(socket: UnixSocket, { pid, uid, gid }: PeerCredentials): void {
    if (!this.options.allow({ pid, uid, gid })) {
      throw new Refusal('not-allowed', `uid ${uid}, gid ${gid} is not allowed`);
    }
    if (!this.#open) throw new Refusal('error', 'the server is closed');
    // Do not announce a client that has already disconnected.
    const received = socket.peek();
    if (received === 'end') throw new Refusal('gone', 'already disconnected');
    if (received === 'data') throw new Refusal('gone', SENT_DATA);
  }

  /** Rejects a client for which accept(2) found no descriptor, although the budget may have some. */
  #reject(socket: UnixSocket): void {
    const credentials = socket.peerCredentials();
    socket.close();
    const reason = `the process is out of descriptors, RLIMIT_NOFILE is ${openFilesLimit().soft}: ${LIMIT_REMEDY}`;
    this.#events.next({ type: 'refused', credentials, cause: 'descriptors', reason });
  }

  #clearState(id: number): void {
    try {
      this.#memory.clearState(id);
    } catch (error) {
      this.#warn(`state of peer ${id} not cleared: ${reasonOf(error)}`);
    }
  }

  #reportGone({ id, failure, since }: Client): void {
    this.#events.next({ type: 'peer-gone', id, ...failure!, since });
    this.#changes.next();
  }

  /**
   * Clears the memory, or the section of `id`, before a new client can see it. Not when the previous owner disconnects:
   * until the others have noticed, they may still read its section, and would take zeros for a frame; and the previous
   * owner can still write.
   */
  #clearFor(id: number): void {
    if (this.#usedIds.size === 0) return;
    if (this.#table.size === 0) {
      this.#memory.clear(0, this.#memory.size);
    } else if (this.#usedIds.has(id)) {
      const { outputOffset, outputSectionSize } = this.layout;
      this.#memory.clearState(id);
      this.#memory.clear(outputOffset + id * outputSectionSize, outputSectionSize);
    }
  }

  #warn(text: string): void {
    this.#events.next({ type: 'warning', text });
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#acceptor.close();
    this.#listener.close();
    this.#table.close();
    this.#memory.close();
    this.#budget.release(OWN_DESCRIPTORS);
    this.#changes.next();
    this.#changes.complete();
    this.#events.next({ type: 'closed' });
    this.#events.complete();
    this.#resolveClosed(null);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

function shortage(budget: DescriptorBudget, what: string, needed: number): string {
  return `${what} needs ${needed} descriptors and ${budget.left} are left, RLIMIT_NOFILE is ${budget.limit}: ${LIMIT_REMEDY}`;
}
