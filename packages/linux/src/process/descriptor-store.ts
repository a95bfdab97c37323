import { check } from '../errors.ts';
import { closeFd } from '../fd.ts';
import * as libc from '../libc.ts';
import { sendDescriptors } from '../socket/datagram.ts';
import { type Environment, type PassedDescriptor, passedDescriptors } from './passed-descriptors.ts';

/** The names of ours begin with it: it has a slash, which no name of a socket unit can have. */
const PREFIX = 'ivshmem/';
/** Longest name, in bytes. Source: FDNAME_MAX of systemd. */
const MAX_NAME = 255;
/** How long to wait for a service manager that does not read, in ms. */
const PATIENCE = 2000;
const F_SETFD = 2;
const FD_CLOEXEC = 1;

/** Plain data from which another thread makes a store, by {@link descriptorStoreOf}. */
export interface DescriptorStoreHandle {
  readonly socket: string;
  readonly prefix: string;
  readonly left: readonly PassedDescriptor[];
}

/**
 * Descriptors that a service manager keeps for this process while it is restarted, also after SIGKILL. The names are unique:
 * {@link remove} a name before it is used for another descriptor. systemd ignores a descriptor of an open file that
 * it already has, so store each open file under one name only. Source: FDSTORE=1 in sd_notify(3).
 */
export interface DescriptorStore {
  /** Names of the descriptors that the process before has left in this scope, not in one within it, and that were not taken yet. */
  readonly left: readonly string[];
  /** Names of the scopes within this one in which something is left. */
  readonly scopes: readonly string[];
  /**
   * Returns one of {@link left}, which the caller owns; it stays in the store, too. undefined if there is none. If there are
   * two of one name, the others are closed. It can be any kind of file: check it.
   */
  take(name: string): number | undefined;
  /**
   * Stores a duplicate. When this returns, the descriptor survives SIGKILL of this process: it is in the socket of the service
   * manager. Blocks while the manager does not read, for up to 2 s. Throws `SystemCallError`.
   */
  put(name: string, fd: number): void;
  /** Removes the descriptor of that name, if there is one, from the store. Blocks and throws as {@link put} does. */
  remove(name: string): void;
  /** The store as a part of this process sees it: its names get a prefix. */
  scope(prefix: string): DescriptorStore;
  /** Closes and removes what was left within this scope and not taken. Throws `SystemCallError`. */
  discardLeft(): void;
  /** Passes the store of this scope, with what was left in it, to another thread. It is empty for this one then. */
  handOver(): DescriptorStoreHandle;
}

/**
 * The store of this process; undefined without one. It has one if a service manager has set NOTIFY_SOCKET and FDSTORE, the
 * number of descriptors: systemd 254 and later do with FileDescriptorStoreMax=, units for earlier ones set FDSTORE by
 * Environment=, and `ivshmem supervise` sets it. Call it once.
 */
export function openDescriptorStore(environment: Environment, pid: number): DescriptorStore | undefined {
  const { NOTIFY_SOCKET: socket, FDSTORE } = environment;
  if (!socket || !(Number(FDSTORE) > 0)) return undefined;
  const left = passedDescriptors(environment, pid).filter(({ name }) => isStored(name));
  for (const { fd } of left) {
    check(libc.fcntl(fd, F_SETFD, 'int', FD_CLOEXEC), 'fcntl F_SETFD', `descriptor ${fd} of LISTEN_FDS`);
  }
  return descriptorStoreOf({ socket, prefix: PREFIX, left });
}

/** Whether a passed descriptor comes from the descriptor store of this program, and not from a socket unit. */
export function isStored(name: string): boolean {
  return name.startsWith(PREFIX);
}

/** Returns the store that another thread has handed over. */
export function descriptorStoreOf({ socket, prefix, left }: DescriptorStoreHandle): DescriptorStore {
  return new NotifiedStore(socket, prefix, [...left]);
}

/** Names are printable ASCII without a colon, and a slash separates scopes. Other characters, as in a path, are escaped. */
function escaped(name: string): string {
  return Buffer.from(name)
    .toString('latin1')
    .replace(/[^!-~]|[:%/]/g, (byte) => `%${byte.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

class NotifiedStore implements DescriptorStore {
  readonly #socket: string;
  readonly #prefix: string;
  /** Shared by all scopes of a thread. */
  readonly #left: PassedDescriptor[];

  constructor(socket: string, prefix: string, left: PassedDescriptor[]) {
    this.#socket = socket;
    this.#prefix = prefix;
    this.#left = left;
  }

  get left(): readonly string[] {
    return this.#names.filter((name) => !name.includes('/')).map(unescaped);
  }

  get scopes(): readonly string[] {
    const scopes = this.#names.filter((name) => name.includes('/')).map((name) => name.split('/')[0]!);
    return [...new Set(scopes)].map(unescaped);
  }

  /** What is left in this scope and those within it, escaped, without the prefix. */
  get #names(): string[] {
    const within = this.#left.filter(({ name }) => name.startsWith(this.#prefix));
    return within.map(({ name }) => name.slice(this.#prefix.length));
  }

  take(name: string): number | undefined {
    const full = this.#full(name);
    const [first, ...others] = this.#extract((found) => found === full);
    for (const { fd } of others) closeFd(fd);
    return first?.fd;
  }

  put(name: string, fd: number): void {
    this.#send(`FDSTORE=1\nFDPOLL=0\nFDNAME=${this.#full(name)}`, [fd]);
  }

  remove(name: string): void {
    this.#send(`FDSTOREREMOVE=1\nFDNAME=${this.#full(name)}`, []);
  }

  scope(prefix: string): DescriptorStore {
    return new NotifiedStore(this.#socket, `${this.#prefix}${escaped(prefix)}/`, this.#left);
  }

  discardLeft(): void {
    for (const { fd, name } of this.#extractOwn()) {
      closeFd(fd);
      this.#send(`FDSTOREREMOVE=1\nFDNAME=${name}`, []);
    }
  }

  handOver(): DescriptorStoreHandle {
    return { socket: this.#socket, prefix: this.#prefix, left: this.#extractOwn() };
  }

  #extractOwn(): PassedDescriptor[] {
    return this.#extract((name) => name.startsWith(this.#prefix));
  }

  #extract(wanted: (name: string) => boolean): PassedDescriptor[] {
    const found = this.#left.filter(({ name }) => wanted(name));
    const rest = this.#left.filter(({ name }) => !wanted(name));
    this.#left.splice(0, this.#left.length, ...rest);
    return found;
  }

  #full(name: string): string {
    const full = `${this.#prefix}${escaped(name)}`;
    if (full.length > MAX_NAME)
      throw new RangeError(`descriptor name ${full}: has more than ${MAX_NAME} bytes`);
    return full;
  }

  #send(message: string, fds: readonly number[]): void {
    sendDescriptors(this.#socket, Buffer.from(message), fds, PATIENCE);
  }
}

function unescaped(name: string): string {
  const bytes = name.replace(/%([0-9a-f]{2})/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)));
  return Buffer.from(bytes, 'latin1').toString();
}
