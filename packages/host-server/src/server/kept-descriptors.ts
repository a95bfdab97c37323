import type { DescriptorStore } from '@ivshmem/linux/process';
import { reasonOf } from './remedies.ts';

/**
 * The descriptors of a server in a descriptor store, under their names. Without a store, nothing is left and nothing is kept.
 * The server goes on if the store fails: that is for `warn`, once until it works again.
 */
export class KeptDescriptors {
  readonly #store: DescriptorStore | undefined;
  readonly #names: Set<string>;
  readonly #warn: (text: string) => void;
  #fails = false;

  constructor(store: DescriptorStore | undefined, warn: (text: string) => void) {
    this.#store = store;
    this.#names = new Set(store?.left);
    this.#warn = warn;
  }

  get exists(): boolean {
    return this.#store !== undefined;
  }

  /** Names of the descriptors that the process before has left and that were not taken yet. */
  get left(): readonly string[] {
    return this.#store?.left ?? [];
  }

  /** Returns one of {@link left}, owned by the caller; it is kept on. */
  take(name: string): number | undefined {
    return this.#store?.take(name);
  }

  /** Keeps a duplicate. No effect if a descriptor of that name is kept, such as one that was taken. */
  put(name: string, fd: number): void {
    if (!this.exists || this.#names.has(name)) return;
    this.#names.add(name);
    this.#try((store) => store.put(name, fd));
  }

  remove(name: string): void {
    if (!this.#names.delete(name)) return;
    this.#try((store) => store.remove(name));
  }

  /** Closes and removes what was left and not taken. */
  discardLeft(): void {
    for (const name of this.left) this.#names.delete(name);
    this.#try((store) => store.discardLeft());
  }

  /** Removes everything. */
  clear(): void {
    this.discardLeft();
    for (const name of this.#names) {
      this.remove(name);
      // Each attempt may take seconds.
      if (this.#fails) return;
    }
  }

  #try(use: (store: DescriptorStore) => void): void {
    if (this.#store === undefined) return;
    try {
      use(this.#store);
      this.#fails = false;
    } catch (error) {
      const text = `a restart of the server will disconnect peers: ${reasonOf(error)}`;
      // The log may not be open yet.
      if (!this.#fails) queueMicrotask(() => this.#warn(text));
      this.#fails = true;
    }
  }
}

/** The name of a client's socket. */
export function socketName(serial: number): string {
  return String(serial);
}

/** The name of a client's eventfd. */
export function eventName(serial: number, vector: number): string {
  return `${serial}.${vector}`;
}
