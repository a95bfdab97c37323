import { closeFd } from '@ivshmem/linux';
import { clearEventFd, EPOLLET, EPOLLIN, type Poller, signalEventFd } from '@ivshmem/linux/wait';
import type { MemoryLayout, Section } from '../protocol/memory-layout.ts';
import type { Port, PortEvent } from './port.ts';
import type { SharedMemory } from './shared-memory.ts';

/** The identity of a port, known when it is opened. */
export interface PortIdentity {
  readonly id: number;
  readonly maxPeers: number;
  readonly protocol: number;
  readonly vectors: number;
}

const NO_DOORBELLS: readonly number[] = [];

/**
 * A port in a process of the host: the shared memory is mapped, each vector of each peer is an eventfd. It does
 * itself what a device does for a guest, such as the entry in the state table.
 */
export class HostPort implements Port {
  readonly id: number;
  readonly maxPeers: number;
  readonly protocol: number;
  readonly vectors: number;
  readonly layout: MemoryLayout;
  readonly dirtyOutput: number;
  readonly #memory: SharedMemory;
  readonly #poller: Poller;
  /** By peer, the eventfds of its vectors; all of them are ours to close. */
  readonly #doorbells: (readonly number[] | undefined)[] = [];
  #interrupts: readonly number[] = NO_DOORBELLS;
  #onInterrupt: (vector: number) => void = () => {};
  #onEvent: (event: PortEvent) => void = () => {};
  #open = true;
  #detached = false;
  #member = true;
  /** The value last written to the state, by this peer. */
  #state = 0;

  /** Takes over the memory. This peer's interrupts come with {@link listen}, the doorbells with {@link addPeer}. */
  constructor(identity: PortIdentity, memory: SharedMemory, poller: Poller) {
    this.id = identity.id;
    this.maxPeers = identity.maxPeers;
    this.protocol = identity.protocol;
    this.vectors = identity.vectors;
    this.layout = memory.layout;
    this.dirtyOutput = memory.dirtyOutput;
    this.#memory = memory;
    this.#poller = poller;
  }

  /** The file that holds the shared memory, for a VMM to map. It stays the port's. */
  get memoryFd(): number {
    return this.#memory.fd;
  }

  get readWrite(): Section | null {
    return this.#memory.readWrite;
  }

  get output(): Section | null {
    return this.#memory.output(this.id);
  }

  input(peer: number): Section | null {
    return this.#memory.output(peer);
  }

  /** Clears this peer's output section, as a new peer finds it. Throws SystemCallError. */
  clearOutput(): void {
    this.#memory.clearOutput();
  }

  peerState(peer: number): number {
    if (!Number.isInteger(peer) || peer < 0 || peer >= this.maxPeers) {
      throw new RangeError(`peer ${peer}: only ${this.maxPeers} peers are possible`);
    }
    return Atomics.load(this.#memory.stateTable, peer);
  }

  get state(): number {
    return Atomics.load(this.#memory.stateTable, this.id);
  }

  set state(value: number) {
    if (!this.#member) return;
    this.#state = value >>> 0;
    if (Atomics.exchange(this.#memory.stateTable, this.id, value) === value >>> 0) return;
    for (let peer = 0; peer < this.#doorbells.length; peer++) if (peer !== this.id) this.ring(peer, 0);
  }

  ring(peer: number, vector: number): boolean {
    const fd = this.#doorbells[peer]?.[vector];
    return fd !== undefined && signalEventFd(fd);
  }

  onInterrupt(handler: (vector: number) => void): void {
    this.#onInterrupt = handler;
  }

  onEvent(handler: (event: PortEvent) => void): void {
    this.#onEvent = handler;
  }

  /**
   * The eventfds that {@link ring} signals for a peer; empty if it is not there. They stay the port's. The peer holds
   * them, too, and can make a write block: signal them by signalEventFd.
   */
  doorbells(peer: number): readonly number[] {
    return this.#doorbells[peer] ?? NO_DOORBELLS;
  }

  /**
   * Takes over the eventfds of this peer's vectors and listens on them. Each event empties the counter: a peer that has
   * brought it to its limit would keep the others from signalling anything.
   */
  protected listen(fds: readonly number[]): void {
    this.#doorbells[this.id] = fds;
    this.#interrupts = fds;
    for (const [vector, fd] of fds.entries()) {
      this.#poller.add(fd, EPOLLIN | EPOLLET, () => {
        clearEventFd(fd);
        this.#onInterrupt(vector);
      });
    }
  }

  /** Takes over the eventfds of another peer, instead of those that it had. */
  protected addPeer(peer: number, fds: readonly number[]): void {
    this.#dropDoorbells(peer);
    this.#doorbells[peer] = fds;
  }

  /** Closes what belongs to another peer. Returns false if there was nothing. */
  protected removePeer(peer: number): boolean {
    return this.#dropDoorbells(peer);
  }

  /** Calls the interrupt handler as if the vector had been rung; not once the port is closed. */
  protected interrupt(vector: number): void {
    if (this.#open) this.#onInterrupt(vector);
  }

  /** Calls the event handler; not once the port is closed. */
  protected report(event: PortEvent): void {
    if (this.#open) this.#onEvent(event);
  }

  /** Whether this peer's entry in the state table was written by another. */
  protected get isStateOverwritten(): boolean {
    return this.state !== this.#state;
  }

  /** The ID is not this peer's any more: from now on its state is another's to write. */
  protected resign(): void {
    this.#member = false;
  }

  #dropDoorbells(peer: number): boolean {
    const fds = this.#doorbells[peer];
    if (fds === undefined) return false;
    this.#doorbells[peer] = undefined;
    for (const fd of fds) closeFd(fd);
    return true;
  }

  /** The state that an earlier process has written is this peer's. */
  protected adoptState(): void {
    this.#state = this.state;
  }

  /** {@link close} shall leave the state as it is, for another process that continues on this port. */
  protected leaveState(): void {
    this.#detached = true;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    if (!this.#detached) this.state = 0;
    for (const fd of this.#interrupts) this.#poller.remove(fd);
    for (let peer = 0; peer < this.#doorbells.length; peer++) this.#dropDoorbells(peer);
    this.#memory.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
