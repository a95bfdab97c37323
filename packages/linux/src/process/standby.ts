import { setNonBlocking } from '../fd.ts';
import { UnixSocket } from '../socket/unix-socket.ts';
import { EPOLLIN } from '../wait/epoll.ts';
import { mainPoller } from '../wait/main-poller.ts';
import { type PassedDescriptor, setPassedDescriptors } from './passed-descriptors.ts';

/** The variable that has the number of a standby process's socket. */
export const STANDBY = 'IVSHMEM_STANDBY';

/** Descriptors per message: their names must fit into the message as well. */
const AT_ONCE = 32;

/**
 * Makes a process that waits in {@link standBy} go on with these descriptors, of which the caller keeps its own. Returns false if
 * its socket takes no more. Throws SystemCallError if the process has ended.
 */
export function handOver(socket: UnixSocket, descriptors: readonly PassedDescriptor[]): boolean {
  for (let i = 0; i < descriptors.length; i += AT_ONCE) {
    const some = descriptors.slice(i, i + AT_ONCE);
    const names = Buffer.from(`${some.map(({ name }) => name).join(':')}\n`);
    if (
      socket.send(
        names,
        some.map(({ fd }) => fd),
      ) < names.length
    )
      return false;
  }
  return socket.send(Buffer.from('\n')) === 1;
}

/**
 * Waits on a socket, of which it takes ownership, until {@link handOver} is called at its other end. Then
 * `passedDescriptors` returns the descriptors. Ends this process if the other end is closed before.
 */
export async function standBy(fd: number): Promise<void> {
  using socket = new UnixSocket(fd);
  setNonBlocking(fd);
  const into = Buffer.alloc(16384);
  const fds: number[] = [];
  let text = '';
  await new Promise<void>((resolve) => {
    mainPoller.add(fd, EPOLLIN, () => {
      for (;;) {
        const received = socket.receive(into, fds);
        if (received === -1) return;
        if (received === 0) process.exit(0);
        text += into.toString('latin1', 0, received);
        if (text !== '\n' && !text.endsWith('\n\n')) continue;
        mainPoller.remove(fd);
        resolve();
        return;
      }
    });
  });
  const names = text.trimEnd() === '' ? [] : text.trimEnd().split(/[:\n]/);
  setPassedDescriptors(names.map((name, i) => ({ name, fd: fds[i]! })));
}
