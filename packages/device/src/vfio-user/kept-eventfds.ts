import { closeFd, duplicateFd } from '@ivshmem/linux';
import type { DescriptorStore } from '@ivshmem/linux/process';
import { eventFdId } from '@ivshmem/linux/wait';
import type { Journal } from './journal.ts';

/** In place of a slot: the descriptor is no eventfd, and was not stored. */
const NO_EVENTFD = 0xffffffff;

/** What {@link KeptEventFds} needs of a DescriptorStore. */
export type EventFdStore = Pick<DescriptorStore, 'take' | 'put' | 'remove'>;

/**
 * The eventfds that a VMM has sent, in a descriptor store. Each is stored under the number of a slot before the request that
 * it came with is received; the journal says which slots belong to the request in work, and which to interrupt vectors. An
 * eventfd that comes again has the same slot, since a service manager ignores an open file that it already has.
 */
export class KeptEventFds {
  readonly #store: EventFdStore;
  readonly #journal: Journal;
  /** Slots in use, by the kernel's number of the eventfd. */
  readonly #slots = new Map<number, number>();
  /** By descriptor. */
  readonly #slotOfFd = new Map<number, number>();
  #changed = false;

  constructor(store: EventFdStore, journal: Journal) {
    this.#store = store;
    this.#journal = journal;
  }

  /**
   * Takes ownership of a descriptor that is about to be received with the request in work, as its number `index`. Returns it
   * once it is stored, or -1 if it is no eventfd. Throws SystemCallError.
   */
  arrive(index: number, fd: number): number {
    this.#changed = true;
    const { requestSlots } = this.#journal;
    const id = eventFdId(fd);
    if (id === undefined) {
      closeFd(fd);
      requestSlots[index] = NO_EVENTFD;
      return -1;
    }
    let slot = this.#slots.get(id);
    if (slot === undefined) {
      slot = this.#freeSlot();
      this.#slots.set(id, slot);
      this.#store.put(String(slot), fd);
    }
    requestSlots[index] = slot;
    this.#slotOfFd.set(fd, slot);
    return fd;
  }

  /** Records which eventfd a vector has; null for none. */
  bind(vector: number, fd: number | null): void {
    this.#changed = true;
    this.#journal.vectorSlots[vector] = fd === null ? 0 : (this.#slotOfFd.get(fd) ?? 0);
  }

  /** Removes from the store what no vector has any more. To be called when the request in work is over. */
  settle(): void {
    if (!this.#changed) return;
    this.#changed = false;
    const used = new Set(this.#journal.vectorSlots);
    for (const [id, slot] of this.#slots) {
      if (used.has(slot)) continue;
      this.#slots.delete(id);
      this.#store.remove(String(slot));
    }
  }

  /**
   * Takes the eventfds of an earlier process from the store: those of the first `count` vectors, undefined if there is none,
   * and those of the request in work, -1 in place of one that is no eventfd. The caller owns them.
   */
  resume(count: number): { vectors: (number | undefined)[]; request: number[] } {
    const { vectorSlots, requestSlots, descriptors } = this.#journal;
    const taken = new Map<number, number>();
    const take = (slot: number): number | undefined => {
      const first = taken.get(slot);
      const fd = first === undefined ? this.#takeSlot(slot) : duplicateFd(first);
      if (fd === undefined) return undefined;
      taken.set(slot, fd);
      this.#slotOfFd.set(fd, slot);
      return fd;
    };
    const vectors = Array.from(vectorSlots.subarray(0, count), (slot) =>
      slot === 0 ? undefined : take(slot),
    );
    const request = Array.from(requestSlots.subarray(0, descriptors), (slot) => take(slot) ?? -1);
    this.#changed = true;
    return { vectors, request };
  }

  #takeSlot(slot: number): number | undefined {
    if (slot === NO_EVENTFD) return undefined;
    const fd = this.#store.take(String(slot));
    if (fd === undefined) return undefined;
    const id = eventFdId(fd);
    if (id !== undefined) {
      this.#slots.set(id, slot);
      return fd;
    }
    closeFd(fd);
    return undefined;
  }

  /** From 1 on. */
  #freeSlot(): number {
    const used = new Set(this.#slots.values());
    let slot = 1;
    while (used.has(slot)) slot++;
    return slot;
  }
}
