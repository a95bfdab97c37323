import { once } from 'node:events';
import { openSync } from 'node:fs';
import { closeFd, duplicateFd } from '@ivshmem/linux';
import { type ControlServer, requestControl, socketName } from '@ivshmem/monitor';
import type { Client } from './client.ts';
import type { HostServer } from './host-server.ts';

const VERB = 'observe';
/** An Ethernet link has peers 0 and 1, and uses two vectors of each. */
const PEERS = 2;
const VECTORS = 2;

/** Descriptors for a process that reads the memory of a link without being a peer. */
export interface Observed {
  /** Open for reading only. */
  readonly memory: number;
  /** Eventfds of peers 0 and 1, as far as they are connected: the first two of each. */
  readonly doorbells: readonly number[];
}

/** See `HostServer.observe`. */
export function openObserved(memoryFd: number, clients: readonly Client[]): Observed {
  const doorbells: number[] = [];
  const memory = openSync(`/proc/self/fd/${memoryFd}`, 'r');
  try {
    for (const { events } of clients.filter(({ id }) => id < PEERS)) {
      for (const fd of events.slice(0, VECTORS)) doorbells.push(duplicateFd(fd));
    }
  } catch (error) {
    closeObserved({ memory, doorbells });
    throw error;
  }
  return { memory, doorbells };
}

function closeObserved({ memory, doorbells }: Observed): void {
  for (const fd of [memory, ...doorbells]) closeFd(fd);
}

/**
 * Answers the verb `observe` of a process with host servers: sends what {@link HostServer.observe} returns, and again whenever
 * a peer connects or disconnects, until the client leaves or the server is closed. `servers` is called for each request, which
 * names the socket of one of them.
 */
export function handleObserve(control: ControlServer, servers: () => readonly HostServer[]): void {
  control.handle(VERB, async ({ socket }, client) => {
    const server = servers().find(({ options }) => socketName(options.socketPath) === socket);
    if (server === undefined) throw new Error(`this process has no host server at ${JSON.stringify(socket)}`);
    const { maxPeers, outputSectionSize } = server.options;
    const subscription = server.peers$.subscribe(() => {
      const observed = server.observe();
      try {
        client.send({ maxPeers, outputSectionSize }, [observed.memory, ...observed.doorbells]);
      } finally {
        closeObserved(observed);
      }
    });
    await Promise.race([server.closed, client.signal.aborted || once(client.signal, 'abort')]);
    subscription.unsubscribe();
  });
}

/** A link as its host server shows it to an observer. */
export interface ObservedLink extends Observed {
  readonly maxPeers: number;
  /** In bytes. */
  readonly outputSectionSize: number;
}

/**
 * Asks the process with the control socket at `path` for what {@link handleObserve} sends of its host server at `socket`, again
 * whenever that changes. The caller owns the descriptors. Ends when the server is closed. Throws an Error of one line, as
 * `requestControl` does.
 */
export async function* observeServer(
  path: string,
  socket: string,
  signal: AbortSignal,
): AsyncGenerator<ObservedLink, void> {
  for await (const { data, fds } of requestControl(path, { verb: VERB, socket }, { timeout: null, signal })) {
    const [memory, ...doorbells] = fds;
    const { maxPeers, outputSectionSize } = (data ?? {}) as Record<string, unknown>;
    if (memory === undefined || !Number.isSafeInteger(maxPeers) || !Number.isSafeInteger(outputSectionSize)) {
      for (const fd of fds) closeFd(fd);
      throw new Error(`${path}: invalid reply: is it the control socket of an ivshmem server?`);
    }
    yield {
      memory,
      doorbells,
      maxPeers: maxPeers as number,
      outputSectionSize: outputSectionSize as number,
    };
  }
}
