import { Acceptor, UnixListener, type UnixSocket } from '@ivshmem/linux/socket';
import { EPOLLIN, EPOLLOUT, EPOLLRDHUP, mainPoller, type Poller } from '@ivshmem/linux/wait';
import type { HostServer } from '../server/host-server.ts';
import { Outbox } from '../server/outbox.ts';

/** A control socket has the path of the server's socket with this suffix. */
export const CONTROL_SUFFIX = '.ctl';
/** Maximum number of connections; further ones are closed at once. */
const MAX_CONNECTIONS = 16;
/** Time limit for a client to read the reply, in ms. */
const TIMEOUT = 5000;
/** Bytes of the reply in one entry of an outbox. */
const CHUNK = 16384;

/** A listening control socket. */
export interface ControlSocket {
  readonly path: string;
  /** Disconnects all clients and removes the socket. Calling it again has no effect. */
  close(): void;
  /** The same as {@link close}. */
  [Symbol.dispose](): void;
}

/**
 * Listens beside the server's socket, accessible to the server's user only. A client gets a `PeerList` as one line of JSON
 * and is disconnected; nothing is read from it. Throws SystemCallError.
 */
export function listenControl(server: HostServer, name: string, poller: Poller = mainPoller): ControlSocket {
  const path = `${server.options.socketPath}${CONTROL_SUFFIX}`;
  const listener = UnixListener.listen(path, { mode: 0o600 });
  const connections = new Set<() => void>();
  const reply = (socket: UnixSocket) => {
    if (connections.size >= MAX_CONNECTIONS) {
      socket.close();
      return;
    }
    const text = Buffer.from(`${JSON.stringify(peerList(server, name))}\n`);
    const outbox = new Outbox(socket, text.length);
    for (let at = 0; at < text.length; at += CHUNK) outbox.push(text.subarray(at, at + CHUNK), null);
    const finish = () => {
      clearTimeout(timer);
      poller.remove(socket.fd);
      outbox.close();
      socket.close();
      connections.delete(finish);
    };
    const timer = setTimeout(finish, TIMEOUT);
    connections.add(finish);
    const send = (events: number) => {
      try {
        if ((events & ~(EPOLLOUT | EPOLLIN)) !== 0 || outbox.flush() === 'sent') finish();
      } catch {
        // The client has disconnected.
        finish();
      }
    };
    try {
      poller.add(socket.fd, EPOLLOUT | EPOLLRDHUP, send);
    } catch {
      finish();
    }
  };
  let acceptor: Acceptor;
  try {
    acceptor = new Acceptor(listener, poller, {
      accepted: reply,
      rejected: (socket) => socket.close(),
      warn() {},
    });
  } catch (error) {
    listener.close();
    throw error;
  }
  const close = () => {
    acceptor.close();
    listener.close();
    for (const finish of connections) finish();
  };
  return { path, close, [Symbol.dispose]: close };
}

function peerList(server: HostServer, link: string) {
  const { socketPath, maxPeers, vectors, protocol, outputSectionSize, size } = server.options;
  return { link, socketPath, size, outputSectionSize, maxPeers, vectors, protocol, peers: server.peers };
}
