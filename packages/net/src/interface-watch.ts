import { SystemCallError } from '@ivshmem/linux';
import {
  getInterface,
  type InterfaceChange,
  InterfaceMonitor,
  Netns,
  type NetworkInterface,
  setInterface,
  type Tap,
} from '@ivshmem/linux/network';
import { EPOLLIN, type Epoll } from '@ivshmem/linux/wait';

/** How often a query is repeated because the interface was renamed or moved meanwhile. */
const ATTEMPTS = 8;

/** The properties whose changes {@link InterfaceWatch} reports. */
const FOLLOWED = ['name', 'index', 'mtu', 'mac', 'up', 'master'] as const;

/** Called with the interface as it is now and as it was before. */
export type InterfaceListener = (now: NetworkInterface, before: NetworkInterface) => void;

/**
 * Follows the interface of a TAP through renames, changes and moves to other network namespaces. The calling thread
 * enters the interface's namespace and does not return, so its other rtnetlink requests concern that namespace, too.
 * Notifications only trigger a query, and the kernel's answer is what is reported: so this class does not mistake its
 * own changes for those of an administrator.
 */
export class InterfaceWatch {
  readonly #tap: Tap;
  readonly #epoll: Epoll;
  readonly #changed: InterfaceListener;
  readonly #log: (text: string) => void;
  /** {@link Netns.id} of the namespace that this thread is in. */
  #netns = '';
  #monitor: InterfaceMonitor | undefined;
  #current: NetworkInterface;
  /** The interface is in a namespace that this process has no permission to enter. */
  #lost = false;
  #deleted = false;

  /**
   * `tap` must be in the calling thread's namespace, or in one that the thread may enter. `changed` is called for
   * changes by other processes, `log` with a line if the interface can no longer be followed. Throws SystemCallError,
   * and Error if the namespace cannot be entered.
   */
  constructor(tap: Tap, epoll: Epoll, changed: InterfaceListener, log: (text: string) => void) {
    this.#tap = tap;
    this.#epoll = epoll;
    this.#changed = changed;
    this.#log = log;
    try {
      using netns = Netns.current();
      this.#monitorHere(netns);
      const found = this.#find();
      if (found === null) throw new Error(`interface ${tap.name} is in ${ELSEWHERE}`);
      this.#current = found;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /**
   * The interface as of the last query. While it is in a namespace that this process may not enter, only its name is
   * current, and it counts as up.
   */
  get current(): NetworkInterface {
    return this.#current;
  }

  /** {@link Netns.id} of the interface's namespace; null if this process may not enter it. */
  get netns(): string | null {
    return this.#lost ? null : this.#netns;
  }

  /** Whether a query has found it deleted. */
  get deleted(): boolean {
    return this.#deleted;
  }

  /** Queries the interface, and reports changes by other processes. Throws an Error of one line if it was deleted. */
  look(): void {
    const before = this.#current;
    this.#refresh();
    if (FOLLOWED.some((key) => before[key] !== this.#current[key])) this.#changed(this.#current, before);
  }

  /**
   * Sets the properties in `wanted`, except those that the interface has already: the kernel demands privileges even for
   * a request that changes nothing. In a namespace that this process may not enter, nothing is changed. Throws
   * SystemCallError.
   */
  apply(wanted: { mtu?: number; bridge?: string; up?: boolean }): void {
    this.look();
    if (this.#lost) return;
    const { mtu, up, master } = this.#current;
    const change: InterfaceChange = {
      ...(wanted.mtu !== undefined && wanted.mtu !== mtu && { mtu: wanted.mtu }),
      ...(wanted.bridge !== undefined && wanted.bridge !== master && { bridge: wanted.bridge }),
      ...(wanted.up !== undefined && wanted.up !== up && { up: wanted.up }),
    };
    if (Object.keys(change).length === 0) return;
    setInterface(this.#current, change);
    this.#refresh();
  }

  #refresh(): void {
    const found = this.#find();
    if (found === null && !this.#lost) {
      this.#log(`the interface is in ${ELSEWHERE}: its MTU and whether it is up are no longer followed`);
    }
    this.#lost = found === null;
    this.#current = found ?? { ...this.#current, name: this.#tap.name, up: true };
  }

  /** Null if the interface is in a namespace that this process may not enter. Throws Error if it was deleted. */
  #find(): NetworkInterface | null {
    let known: NetworkInterface | undefined = this.#current;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const name = this.#tap.identify();
      if (name === null) {
        this.#deleted = true;
        throw new Error(`interface ${this.#tap.name}: it has been deleted`);
      }
      using netns = this.#tap.netns();
      if (netns !== null && netns.id !== this.#netns) {
        if (!this.#enter(netns)) return null;
        known = undefined;
      }
      const found = getInterface(known ?? name);
      if (found === null) {
        // Without the privilege to query the namespace: an interface that is not in ours must be in another.
        if (netns === null) return null;
        known = undefined;
      } else if (found.name === this.#tap.identify() && this.#isHere()) {
        return found;
      }
    }
    return null;
  }

  /** Whether the interface is in this thread's namespace, as far as this process has permission to find out. */
  #isHere(): boolean {
    using netns = this.#tap.netns();
    return netns === null || netns.id === this.#netns;
  }

  #enter(netns: Netns): boolean {
    try {
      netns.enter();
    } catch (error) {
      if (error instanceof SystemCallError) return false;
      throw error;
    }
    this.#monitorHere(netns);
    return true;
  }

  /** Called before the first query, so that no change is missed in between. */
  #monitorHere(netns: Netns): void {
    const monitor = new InterfaceMonitor();
    this.close();
    this.#monitor = monitor;
    this.#netns = netns.id;
    this.#epoll.add(monitor.fd, EPOLLIN, () => {
      if (monitor.changed(this.#lost ? undefined : this.#current.index)) this.look();
    });
  }

  close(): void {
    if (this.#monitor === undefined) return;
    this.#epoll.remove(this.#monitor.fd);
    this.#monitor.close();
    this.#monitor = undefined;
  }
}

const ELSEWHERE = 'a network namespace that this process may not enter';
