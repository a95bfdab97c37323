import { closeFd } from '@ivshmem/linux';
import { StateMemory } from '@ivshmem/linux/memory';
import type { DescriptorStore } from '@ivshmem/linux/process';

/** Kind and version of the state: {u32 whether an administrator has set the MTU, u32 whether Open vSwitch has a port}. */
const KIND = 'link';
const VERSION = 1;
const SIZE = 8;
const MTU_SET = 0;
const OVS_PORT = 1;

const TAP = 'tap';
const STATE = 'state';

/**
 * What outlives the process of a link besides its port: the TAP, whose interface keeps name, addresses, routes and place in the
 * bridge as long as a descriptor of it is open somewhere, and what the kernel does not know of it.
 */
export class LinkRecord {
  readonly #store: DescriptorStore;
  readonly #log: (text: string) => void;
  readonly #state: StateMemory;
  readonly #words: Uint32Array;
  #tapFd: number | undefined;

  /** Takes what the process before has left. `store` is for this record alone; `log` as everywhere. Throws SystemCallError. */
  constructor(store: DescriptorStore, log: (text: string) => void) {
    this.#store = store;
    this.#log = log;
    this.#tapFd = store.take(TAP);
    const left = this.#adopt(store.take(STATE));
    this.#state = left ?? StateMemory.create(KIND, VERSION, SIZE);
    this.#words = new Uint32Array(this.#state.mapping.buffer, this.#state.offset, SIZE / 4);
    if (left === null) this.discard();
  }

  #adopt(fd: number | undefined): StateMemory | null {
    if (fd === undefined) return null;
    const state = StateMemory.adopt(fd, KIND, VERSION, SIZE);
    if (typeof state !== 'string') return state;
    this.#log(`the interface of the process before is not used: ${state}`);
    return null;
  }

  /** The TAP of the process before, which the caller owns from now on; undefined if there is none. */
  takeTap(): number | undefined {
    const fd = this.#tapFd;
    this.#tapFd = undefined;
    return fd;
  }

  /** Whether an administrator has set the interface's MTU. */
  get mtuSet(): boolean {
    return this.#words[MTU_SET] !== 0;
  }

  set mtuSet(value: boolean) {
    this.#words[MTU_SET] = Number(value);
  }

  /** Whether a link has added the interface to a bridge of Open vSwitch. */
  get ovsPort(): boolean {
    return this.#words[OVS_PORT] !== 0;
  }

  set ovsPort(value: boolean) {
    this.#words[OVS_PORT] = Number(value);
  }

  /** Keeps a new TAP. A store that fails is logged, and the link goes on without it. */
  keep(tapFd: number): void {
    try {
      this.#store.put(STATE, this.#state.fd);
      this.#store.put(TAP, tapFd);
    } catch (error) {
      this.#log(
        `a restart will make the interface anew, since the descriptor store failed: ${(error as Error).message}`,
      );
    }
  }

  /** Removes everything from the store: what was left is unusable. */
  discard(): void {
    this.#words.fill(0);
    const fd = this.takeTap();
    if (fd !== undefined) closeFd(fd);
    try {
      this.#store.remove(TAP);
      this.#store.remove(STATE);
    } catch {
      // Said when something is to be kept.
    }
  }

  /** Leaves everything in the store, for the next process. */
  close(): void {
    const fd = this.takeTap();
    if (fd !== undefined) closeFd(fd);
    this.#state.close();
  }
}
