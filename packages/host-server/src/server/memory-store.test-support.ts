import { closeFd, duplicateFd } from '@ivshmem/linux';
import type { DescriptorStore, DescriptorStoreHandle } from '@ivshmem/linux/process';

/** A descriptor store within one process: what it keeps is left for the store that {@link next} returns. */
export class MemoryStore implements DescriptorStore {
  /** Duplicates by name. */
  readonly kept: Map<string, number>;
  readonly #left: Map<string, number>;
  readonly #prefix: string;

  constructor(kept = new Map<string, number>(), left = new Map<string, number>(), prefix = '') {
    this.kept = kept;
    this.#left = left;
    this.#prefix = prefix;
  }

  /** The store of the next process. */
  next(): MemoryStore {
    const left = [...this.kept].map(([name, fd]) => [name, duplicateFd(fd)] as const);
    return new MemoryStore(this.kept, new Map(left));
  }

  /** Stores another descriptor under a name, of which it takes ownership. */
  replace(name: string, fd: number): void {
    this.remove(name);
    this.put(name, fd);
    closeFd(fd);
  }

  get left(): readonly string[] {
    return this.#names().filter((name) => !name.includes('/'));
  }

  get scopes(): readonly string[] {
    const scopes = this.#names().flatMap((name) => (name.includes('/') ? [name.split('/')[0]!] : []));
    return [...new Set(scopes)];
  }

  take(name: string): number | undefined {
    const fd = this.#left.get(this.#prefix + name);
    this.#left.delete(this.#prefix + name);
    return fd;
  }

  put(name: string, fd: number): void {
    if (this.kept.has(this.#prefix + name)) throw new Error(`${name} is kept already`);
    this.kept.set(this.#prefix + name, duplicateFd(fd));
  }

  remove(name: string): void {
    const fd = this.kept.get(this.#prefix + name);
    if (fd !== undefined) closeFd(fd);
    this.kept.delete(this.#prefix + name);
  }

  scope(prefix: string): DescriptorStore {
    return new MemoryStore(this.kept, this.#left, `${this.#prefix}${prefix}/`);
  }

  discardLeft(): void {
    for (const name of this.#names()) {
      closeFd(this.take(name)!);
      this.remove(name);
    }
  }

  handOver(): DescriptorStoreHandle {
    throw new Error('this store cannot be passed on');
  }

  /** Closes everything. */
  close(): void {
    for (const fd of [...this.kept.values(), ...this.#left.values()]) closeFd(fd);
    this.kept.clear();
    this.#left.clear();
  }

  #names(): string[] {
    const names = [...this.#left.keys()].filter((name) => name.startsWith(this.#prefix));
    return names.map((name) => name.slice(this.#prefix.length));
  }
}
