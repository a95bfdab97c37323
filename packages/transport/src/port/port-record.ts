import { closeFd, duplicateFd } from '@ivshmem/linux';
import { StateMemory } from '@ivshmem/linux/memory';
import type { DescriptorStore } from '@ivshmem/linux/process';
import {
  decodeServerMessage,
  encodeInit,
  type InitMessage,
  ServerProtocolError,
} from '../protocol/server-messages.ts';

/** Kind and version of the state. Any change of the names or of the layout below needs another version. */
const KIND = 'port';
const VERSION = 1;
/** {u32 valid, u32 uid, INIT of 40 bytes, u32 marked, char path[128] from byte 64 on}. */
const SIZE = 192;
const INIT_OFFSET = 8;
const INIT_SIZE = 40;
const MARKED_OFFSET = 48;
const PATH_OFFSET = 64;

const MEMORY = 'memory';
const SERVER = 'server';
const STATE = 'state';
const eventFdName = (peer: number, vector: number) => `eventfd.${peer}.${vector}`;

/** The host server of a port. */
export interface ServerAddress {
  readonly socketPath: string;
  /** User of the process that listens there. */
  readonly uid: number;
}

/** What a process finds of the port of the process before. */
export interface RecordedPort extends ServerAddress {
  readonly record: PortRecord;
  readonly init: InitMessage;
  /** The server had marked the memory as in use, see markFileInUse in packages/linux. */
  readonly marked: boolean;
  /** The caller owns this descriptor and the next ones. */
  readonly memoryFd: number;
  /** The connection; undefined if it has ended. */
  readonly serverFd: number | undefined;
  /** By peer, the eventfds of its vectors from 0 on. The last are missing if the server has not announced them, or has released the peer. */
  readonly eventFds: readonly (readonly number[])[];
}

/**
 * A port on a host server, as it is kept in a descriptor store: memory, connection, the eventfds of all peers, and INIT. The state
 * is stored last and removed first, so a port is complete if the state is there.
 *
 * A store that fails does not affect the port: the record is marked as invalid, and the next process begins anew.
 */
export class PortRecord {
  readonly #store: DescriptorStore;
  readonly #state: StateMemory;
  #failed: (error: Error) => void = () => {};
  #valid = true;
  /** By peer, how many eventfds are stored. */
  readonly #vectors: number[] = [];

  private constructor(store: DescriptorStore, state: StateMemory) {
    this.#store = store;
    this.#state = state;
  }

  /** Stores a port. `store` must be empty. Throws SystemCallError, having stored nothing. */
  static create(
    store: DescriptorStore,
    { init, socketPath, uid, marked, memoryFd, serverFd, eventFds }: Omit<RecordedPort, 'record'>,
  ): PortRecord {
    const state = StateMemory.create(KIND, VERSION, SIZE);
    const { buffer } = state.mapping;
    new Uint8Array(buffer, state.offset + INIT_OFFSET, INIT_SIZE).set(encodeInit(init));
    new Uint32Array(buffer, state.offset + MARKED_OFFSET, 1)[0] = marked ? 1 : 0;
    Buffer.from(buffer, state.offset + PATH_OFFSET, SIZE - PATH_OFFSET).write(socketPath);
    new Uint32Array(buffer, state.offset, 2).set([1, uid]);
    const record = new PortRecord(store, state);
    try {
      store.put(MEMORY, memoryFd);
      for (const [peer, fds] of eventFds.entries()) for (const fd of fds) record.#putEventFd(peer, fd);
      if (serverFd !== undefined) store.put(SERVER, serverFd);
      store.put(STATE, state.fd);
      return record;
    } catch (error) {
      record.#invalidate();
      state.close();
      throw error;
    }
  }

  /**
   * Takes the port that the process before has left in `store`. Returns null if there is none, and a reason of one line if it is
   * unusable; the store is empty then. The kinds of the descriptors are for the caller to check.
   */
  static restore(store: DescriptorStore): RecordedPort | string | null {
    const names = new Set(store.left);
    if (names.size === 0) return null;
    const fds = new Map([...names].map((name) => [name, store.take(name)!]));
    const found = restore(store, fds);
    for (const [name, fd] of fds) {
      closeFd(fd);
      store.remove(name);
    }
    return found;
  }

  /** From now on, `failed` is called once if the store fails: the port is not kept any more. */
  onFailure(failed: (error: Error) => void): void {
    this.#failed = failed;
  }

  /** Stores the eventfd of a peer's next vector. */
  addEventFd(peer: number, fd: number): void {
    this.#try(() => this.#putEventFd(peer, fd));
  }

  /** The peer has gone. The last vector is removed first, so that those that are stored are always the first ones. */
  removePeer(peer: number): void {
    this.#try(() => {
      for (let vector = (this.#vectors[peer] ?? 0) - 1; vector >= 0; vector--) {
        this.#store.remove(eventFdName(peer, vector));
        this.#vectors[peer] = vector;
      }
    });
  }

  /** The connection has ended. */
  removeServer(): void {
    this.#try(() => this.#store.remove(SERVER));
  }

  /** Removes the port from the store. */
  remove(): void {
    this.#try(() => this.#removeAll());
    this.close();
  }

  /** Leaves the port in the store, for the next process. */
  close(): void {
    this.#valid = false;
    this.#state.close();
  }

  #putEventFd(peer: number, fd: number): void {
    const vector = this.#vectors[peer] ?? 0;
    this.#store.put(eventFdName(peer, vector), fd);
    this.#vectors[peer] = vector + 1;
  }

  #removeAll(): void {
    this.#store.remove(STATE);
    this.#store.remove(SERVER);
    this.#store.remove(MEMORY);
    for (const [peer, count = 0] of this.#vectors.entries()) {
      for (let vector = 0; vector < count; vector++) this.#store.remove(eventFdName(peer, vector));
    }
  }

  #try(change: () => void): void {
    if (!this.#valid) return;
    try {
      change();
    } catch (error) {
      this.#invalidate();
      this.close();
      this.#failed(error as Error);
    }
  }

  /** A write to the memory cannot fail as a message can. */
  #invalidate(): void {
    new Uint32Array(this.#state.mapping.buffer, this.#state.offset, 1)[0] = 0;
    try {
      this.#removeAll();
    } catch {
      // The next process discards it.
    }
  }

  /** The record of a port in `store` with this state and so many eventfds of each peer. */
  static of(store: DescriptorStore, state: StateMemory, vectors: readonly number[]): PortRecord {
    const record = new PortRecord(store, state);
    record.#vectors.push(...vectors);
    return record;
  }
}

/** Moves the descriptors of a usable port out of `fds`. */
function restore(store: DescriptorStore, fds: Map<string, number>): RecordedPort | string {
  const take = (name: string) => {
    const fd = fds.get(name);
    fds.delete(name);
    return fd;
  };
  const stateFd = fds.get(STATE);
  if (stateFd === undefined || !fds.has(MEMORY)) return 'it was not stored completely';
  const state = StateMemory.adopt(duplicateFd(stateFd), KIND, VERSION, SIZE);
  if (typeof state === 'string') return state;
  const identity = decode(state);
  if (typeof identity === 'string') {
    state.close();
    return identity;
  }
  closeFd(take(STATE)!);
  const eventFds = Array.from({ length: identity.init.maxPeers }, (_, peer) => {
    const found: number[] = [];
    while (found.length < identity.init.vectors && fds.has(eventFdName(peer, found.length)))
      found.push(take(eventFdName(peer, found.length))!);
    return found;
  });
  const counts = eventFds.map(({ length }) => length);
  const record = PortRecord.of(store, state, counts);
  return { ...identity, record, memoryFd: take(MEMORY)!, serverFd: take(SERVER), eventFds };
}

/** Reads the state; a string says why it is unusable. */
function decode({
  mapping: { buffer },
  offset,
}: StateMemory): (ServerAddress & Pick<RecordedPort, 'init' | 'marked'>) | string {
  const [valid, uid] = new Uint32Array(buffer, offset, 2);
  if (valid !== 1) return 'the descriptor store had failed';
  try {
    const init = decodeServerMessage(new Uint8Array(buffer, offset + INIT_OFFSET, INIT_SIZE));
    if (init.type !== 'init') return 'its state has no INIT message';
    const path = Buffer.from(buffer, offset + PATH_OFFSET, SIZE - PATH_OFFSET).toString();
    const marked = new Uint32Array(buffer, offset + MARKED_OFFSET, 1)[0] !== 0;
    return { init, marked, uid: uid!, socketPath: path.slice(0, path.indexOf('\0')) };
  } catch (error) {
    if (error instanceof ServerProtocolError) return `its state is invalid: ${error.message}`;
    throw error;
  }
}
