import { closeFd } from '@ivshmem/linux';
import type { PeerCredentials, UnixSocket } from '@ivshmem/linux/socket';
import { createEventFd } from '@ivshmem/linux/wait';
import { encodeInit, type MemoryLayout } from '@ivshmem/transport/protocol';
import { Client, type ClientParts, SENT_DATA } from './client.ts';
import type { ClientTable } from './client-table.ts';
import { type DescriptorBudget, LIMIT_REMEDY } from './descriptor-budget.ts';
import type { RefusalCause } from './events.ts';
import { eventName, type KeptDescriptors, socketName } from './kept-descriptors.ts';
import type { LinkState, Tenant } from './link-state.ts';
import { type HostServerSettings, protocolOf } from './options.ts';
import type { SharedMemory } from './shared-memory.ts';

/** Why a client is rejected. */
export class Refusal extends Error {
  readonly refusal: RefusalCause;
  constructor(refusal: RefusalCause, reason: string) {
    super(reason);
    this.refusal = refusal;
  }
}

/** Why there are too few descriptors for something. */
export function shortage(budget: DescriptorBudget, what: string, needed: number): string {
  return `${what} needs ${needed} descriptors and ${budget.left} are left, RLIMIT_NOFILE is ${budget.limit}: ${LIMIT_REMEDY}`;
}

/** What {@link Reception} works on. */
export interface Premises {
  readonly settings: HostServerSettings;
  readonly layout: MemoryLayout;
  readonly memory: SharedMemory;
  readonly state: LinkState;
  readonly kept: KeptDescriptors;
  readonly table: ClientTable;
  readonly budget: DescriptorBudget;
}

/**
 * Makes clients of sockets, and frees what they had. With a descriptor store, each step leaves what the next process can
 * continue with: a socket in the store that has no ID was accepted, an ID whose socket is not there was about to become free.
 */
export class Reception {
  readonly #on: Premises;

  constructor(premises: Premises) {
    this.#on = premises;
  }

  /**
   * Connects a client. `stored`: the serial of one that an earlier process has accepted. Throws Error, which is a
   * {@link Refusal} if the client is rejected; the caller still owns the socket then.
   */
  admit(socket: UnixSocket, credentials: PeerCredentials, stored: number | undefined): Client {
    const { settings, budget, kept, state, table } = this.#on;
    const { vectors, maxPeers } = settings;
    this.#check(socket, credentials);
    const id = table.lowestFreeId();
    if (id === null) throw new Refusal('no-free-id', `all ${maxPeers} IDs are taken`);
    const needed = 1 + vectors;
    if (!budget.take(needed)) throw new Refusal('descriptors', shortage(budget, 'a peer', needed));
    const serial = stored ?? state.nextSerial();
    if (stored === undefined) kept.put(socketName(serial), socket.fd);
    const events: number[] = [];
    try {
      while (events.length < vectors) events.push(createEventFd());
      for (const [vector, event] of events.entries()) kept.put(eventName(serial, vector), event);
      this.#clearFor(id);
      const tenant = { serial, credentials, since: new Date() };
      state.join(id, tenant);
      const client = this.restore({ ...tenant, id, socket, events });
      table.add(client);
      return client;
    } catch (error) {
      this.#forget(serial);
      if (state.serial(id) === serial) state.leave(id);
      for (const event of events) closeFd(event);
      budget.release(needed);
      throw error;
    }
  }

  /** Makes a client of one that has its ID; its descriptors are taken from the budget. */
  restore(parts: Omit<ClientParts, 'init'>): Client {
    const { settings, memory, state, table, budget } = this.#on;
    const { maxPeers, vectors, outputSectionSize } = settings;
    const protocol = protocolOf(settings, parts.id);
    const bytes = encodeInit({ id: parts.id, maxPeers, vectors, protocol, outputSectionSize });
    return new Client({ ...parts, init: { bytes, fd: memory.fd, about: null } }, state, table.byId, budget);
  }

  /**
   * Frees the ID of a client and sets its state to 0. Its descriptors leave the store first: without them it is gone, whatever
   * happens next. Throws SystemCallError, or Error of `node:fs`, if only the state could not be set.
   */
  free({ id, serial }: Pick<Tenant, 'serial'> & { readonly id: number }): void {
    this.#forget(serial);
    this.#on.state.leave(id);
    this.#on.memory.clearState(id);
  }

  /** Removes a client's descriptors from the store. */
  #forget(serial: number): void {
    const { kept, settings } = this.#on;
    kept.remove(socketName(serial));
    for (let vector = 0; vector < settings.vectors; vector++) kept.remove(eventName(serial, vector));
  }

  #check(socket: UnixSocket, { pid, uid, gid }: PeerCredentials): void {
    if (!this.#on.settings.allow({ pid, uid, gid })) {
      throw new Refusal('not-allowed', `uid ${uid}, gid ${gid} is not allowed`);
    }
    // Do not announce a client that has already disconnected.
    const received = socket.peek();
    if (received === 'end') throw new Refusal('gone', 'already disconnected');
    if (received === 'data') throw new Refusal('gone', SENT_DATA);
  }

  /**
   * Clears the memory, or the section of `id`, before a new client can see it. Not when the previous owner disconnects:
   * until the others have noticed, they may still read its section, and would take zeros for a frame; and the previous
   * owner can still write.
   */
  #clearFor(id: number): void {
    const { memory, state, table, layout } = this.#on;
    if (table.size === 0) {
      if (state.isAnyUsed) memory.clear(0, memory.size);
    } else if (state.isUsed(id)) {
      memory.clearState(id);
      memory.clear(layout.outputOffset + id * layout.outputSectionSize, layout.outputSectionSize);
    }
  }
}
