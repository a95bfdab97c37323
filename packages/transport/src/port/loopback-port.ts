import { closeFd, duplicateFd } from '@ivshmem/linux';
import { createMemfd } from '@ivshmem/linux/memory';
import { createEventFd, type Poller } from '@ivshmem/linux/wait';
import { memoryLayout, STATE_TABLE_SIZE } from '../protocol/memory-layout.ts';
import { HostPort, type PortIdentity } from './host-port.ts';
import { SharedMemory } from './shared-memory.ts';

/** What `LoopbackPort` needs, as plain data: it may be sent to another thread of the process. */
export interface LoopbackEnd extends PortIdentity {
  readonly outputSectionSize: number;
  /** The shared memory. */
  readonly memoryFd: number;
  /** By peer, the eventfds of its vectors. */
  readonly eventFds: readonly (readonly number[])[];
}

/** Two peers in one process, without a server. Owns the descriptors, which the ports duplicate. */
export class Loopback {
  readonly ends: readonly [LoopbackEnd, LoopbackEnd];
  #open = true;

  /**
   * `outputSectionSize` in bytes for each output section, `readWriteSize` for the common one, both multiples of the page
   * size. Throws LayoutError, SystemCallError.
   */
  constructor(options: {
    outputSectionSize: number;
    readWriteSize?: number;
    vectors?: number;
    protocol?: number;
  }) {
    const { outputSectionSize, readWriteSize = 0, vectors = 2, protocol = 1 } = options;
    const size = STATE_TABLE_SIZE + readWriteSize + 2 * outputSectionSize;
    memoryLayout(size, 2, outputSectionSize);
    const memoryFd = createMemfd('ivshmem-loopback', size);
    const eventFds: number[][] = [[], []];
    try {
      for (const fds of eventFds) for (let vector = 0; vector < vectors; vector++) fds.push(createEventFd());
    } catch (error) {
      for (const fd of [memoryFd, ...eventFds.flat()]) closeFd(fd);
      throw error;
    }
    const end = (id: number): LoopbackEnd => ({
      id,
      maxPeers: 2,
      protocol,
      vectors,
      outputSectionSize,
      memoryFd,
      eventFds,
    });
    this.ends = [end(0), end(1)];
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    const { memoryFd, eventFds } = this.ends[0];
    for (const fd of eventFds.flat()) closeFd(fd);
    closeFd(memoryFd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** One of two ports in one process; the other one counts as present from the start. */
export class LoopbackPort extends HostPort {
  constructor(end: LoopbackEnd, poller: Poller) {
    super(
      end,
      new SharedMemory(duplicateFd(end.memoryFd), end.id, end.maxPeers, end.outputSectionSize),
      poller,
    );
    try {
      const copies = duplicateAll(end.eventFds);
      for (const [peer, fds] of copies.entries()) if (peer !== end.id) this.addPeer(peer, fds);
      this.listen(copies[end.id]!);
    } catch (error) {
      this.close();
      throw error;
    }
  }
}

/** Duplicates all descriptors, or none. */
function duplicateAll(groups: LoopbackEnd['eventFds']): number[][] {
  const copies: number[][] = groups.map(() => []);
  try {
    for (const [i, fds] of groups.entries()) for (const fd of fds) copies[i]!.push(duplicateFd(fd));
  } catch (error) {
    for (const fd of copies.flat()) closeFd(fd);
    throw error;
  }
  return copies;
}
