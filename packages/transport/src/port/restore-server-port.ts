import { closeFd } from '@ivshmem/linux';
import type { DescriptorStore } from '@ivshmem/linux/process';
import { UnixSocket } from '@ivshmem/linux/socket';
import { EPOLLIN, isEventFd, type Poller, prepareSignals } from '@ivshmem/linux/wait';
import { PortRecord, type RecordedPort } from './port-record.ts';
import { ServerConnection } from './server-connection.ts';
import { ServerPort } from './server-port.ts';
import { isSealed, type ServerTrust } from './server-trust.ts';
import { SharedMemory } from './shared-memory.ts';

/**
 * Continues on the port that the process before has kept in `store` ({@link ServerPort.keep}): same ID, memory and doorbells. Its state
 * in the state table is the one that was last written. Messages that the server has sent meanwhile are handled on `poller`.
 *
 * Returns null if there is none, and a reason of one line if it is unusable or belongs to another `socketPath`; the store is
 * empty then. `log` as in {@link ServerPort.keep}. Throws SystemCallError.
 */
export function restoreServerPort(
  store: DescriptorStore,
  socketPath: string,
  poller: Poller,
  trust: ServerTrust,
  log: (text: string) => void,
): ServerPort | string | null {
  const found = PortRecord.restore(store);
  if (found === null || typeof found === 'string') return found;
  const problem = problemOf(found, socketPath);
  if (problem !== null) return discard(found, problem);
  const { record, init, memoryFd, serverFd, eventFds, uid } = found;
  let memory: SharedMemory;
  try {
    memory = new SharedMemory(memoryFd, init.id, init.maxPeers, init.outputSectionSize);
  } catch (error) {
    // The memory has closed its descriptor.
    return discard({ ...found, memoryFd: -1 }, (error as Error).message);
  }
  trust.accept({ uid, sealed: isSealed(memoryFd) });
  const connection = new ServerConnection(new UnixSocket(serverFd ?? -1), init);
  const port = new ServerPort(init, { socketPath, uid }, memory, poller, connection);
  prepareSignals();
  if (serverFd !== undefined) poller.add(serverFd, EPOLLIN, () => port.read());
  port.resume(record, eventFds, serverFd !== undefined, log);
  return port;
}

function problemOf(
  { init, socketPath, uid, marked, serverFd, eventFds }: RecordedPort,
  wanted: string,
): string | null {
  if (socketPath !== wanted) return `it is on the host server at ${socketPath}`;
  if (eventFds[init.id]!.length < init.vectors) return 'some of its vectors are missing';
  for (const fds of eventFds) if (!fds.every(isEventFd)) return 'one of its vectors is no eventfd';
  return serverFd === undefined ? null : problemOfConnection(new UnixSocket(serverFd), uid, marked);
}

function problemOfConnection(socket: UnixSocket, uid: number, marked: boolean): string | null {
  try {
    if (socket.peerCredentials().uid !== uid) return 'its connection is to another user';
  } catch (error) {
    return (error as Error).message;
  }
  // Without a mark, it cannot be told any more whether the server has died or has evicted this peer. With one, the port reports it.
  return !marked && socket.peek() === 'end' ? 'the host server has disconnected it meanwhile' : null;
}

function discard({ record, memoryFd, serverFd = -1, eventFds }: RecordedPort, reason: string): string {
  for (const fd of [memoryFd, serverFd, ...eventFds.flat()]) closeFd(fd);
  record.remove();
  return reason;
}
