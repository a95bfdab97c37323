import { closeFd, duplicateFd } from '../fd.ts';
import type { Notification } from './notify-socket.ts';
import type { PassedDescriptor } from './passed-descriptors.ts';

/** Printable ASCII without a colon. Source: FDNAME in sd_notify(3). */
const NAME = /^[ -9;-~]{1,255}$/;

/** The descriptors that a service manager keeps for one service: the other side of `DescriptorStore`. */
export class DescriptorKeeper {
  /** How many are kept at most. */
  readonly limit: number;
  readonly #kept: PassedDescriptor[] = [];

  constructor(limit: number) {
    this.limit = limit;
  }

  /** By the names that their owner has given them. */
  get kept(): readonly PassedDescriptor[] {
    return this.#kept;
  }

  /**
   * Does what a message of the service says about the store, and takes ownership of its descriptors. Returns how many of them were
   * dropped, since the store is full, or they were not meant for it. Source: FDSTORE and FDSTOREREMOVE in sd_notify(3).
   */
  handle({ variables, fds }: Notification): number {
    const given = variables.get('FDNAME') ?? 'stored';
    const name = NAME.test(given) ? given : 'stored';
    const stores = variables.get('FDSTORE') === '1' && variables.get('FDSTOREREMOVE') !== '1';
    if (variables.get('FDSTOREREMOVE') === '1') this.#remove(given);
    const room = stores ? this.limit - this.#kept.length : 0;
    for (const fd of fds.slice(0, room)) this.#kept.push({ name, fd });
    const dropped = fds.slice(room);
    for (const fd of dropped) closeFd(fd);
    return dropped.length;
  }

  /** Duplicates of all, for the next process of the service; the caller owns them. Throws `SystemCallError`. */
  duplicates(): PassedDescriptor[] {
    return this.#kept.map(({ name, fd }) => ({ name, fd: duplicateFd(fd) }));
  }

  #remove(name: string): void {
    for (let i = this.#kept.length - 1; i >= 0; i--) {
      if (this.#kept[i]!.name !== name) continue;
      closeFd(this.#kept[i]!.fd);
      this.#kept.splice(i, 1);
    }
  }

  /** Closes all. */
  close(): void {
    for (const { fd } of this.#kept.splice(0)) closeFd(fd);
  }
}
