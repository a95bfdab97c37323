import { closeFd, SystemCallError } from '@ivshmem/linux';
import { EPOLLIN, type Poller, prepareSignals, Timer } from '@ivshmem/linux/wait';
import { ServerProtocolError } from '../protocol/server-messages.ts';
import type { Port } from './port.ts';
import type { ServerAddress } from './port-record.ts';
import { type ReceivedMessage, ServerConnection } from './server-connection.ts';
import { type PortReadiness, ServerPort } from './server-port.ts';
import { isSealed, ServerTrust } from './server-trust.ts';
import { SharedMemory } from './shared-memory.ts';

/** Time limit for the server's first messages, in ms. */
const PATIENCE = 5000;

const connectRemedies: Record<string, string> = {
  ENOENT: 'there is no socket: start a host server, or say where its socket is',
  ECONNREFUSED: 'no host server answers there: start one, or say where its socket is',
  EACCES: 'needs permission to write to the socket: run as the user of the host server',
  EAGAIN: 'too many clients wait for the host server: try again later',
};

/** A port that is being opened. */
export interface OpeningPort {
  /** Cancels. No effect once the port was opened, or has failed to open. */
  cancel(): void;
}

/** Called once, with the port, which belongs to the receiver, or with an Error of one line. */
export type PortOpened = (opened: Port | Error) => void;

/** The same for ports that are known to be on a host server. */
export type ServerPortOpened = (opened: ServerPort | Error) => void;

/**
 * Connects to the host server at `socketPath`, which has 5 s to send everything. Reasons for failure: no server listens at
 * the path, its protocol is another one, it has no room for another peer, the memory is smaller than announced, or `trust`
 * does not allow this server to follow the previous one.
 */
export function openServerPort(
  socketPath: string,
  poller: Poller,
  opened: ServerPortOpened,
  trust = new ServerTrust(),
): OpeningPort {
  const refuse = (error: Error) => {
    opened(new Error(`host server at ${socketPath}: ${error.message}`, { cause: error }));
    return { cancel() {} };
  };
  let connection: ServerConnection;
  try {
    prepareSignals();
    connection = ServerConnection.connect(socketPath);
  } catch (error) {
    opened(withRemedy(error as Error));
    return { cancel() {} };
  }
  let uid: number;
  try {
    ({ uid } = connection.credentials);
    trust.checkUser(uid);
  } catch (error) {
    connection.close();
    return refuse(error as Error);
  }
  let port: ServerPort | undefined;
  let timer: Timer | undefined;
  const giveUp = () => {
    timer?.close();
    timer = undefined;
    if (port === undefined) {
      poller.remove(connection.fd);
      connection.close();
    } else {
      port.close();
    }
  };
  const fail = (error: Error) => {
    giveUp();
    refuse(error);
  };
  const succeed = () => {
    timer?.close();
    timer = undefined;
    trust.accept({ uid, sealed: isSealed(port!.memoryFd) });
    opened(port!);
  };
  const onReadable = () => {
    if (port !== undefined) return port.read();
    try {
      const received = connection.read();
      if (received === 'wait') return;
      if (received === 'end') {
        throw new Error(
          'closed the connection at once: it has no room for another peer, or speaks another protocol',
        );
      }
      port = introduce(received, { socketPath, uid }, poller, connection, trust, {
        ready: succeed,
        lost: fail,
      });
    } catch (error) {
      return fail(error as Error);
    }
    port.read();
  };
  try {
    timer = new Timer(poller, () =>
      fail(new Error(`no answer in ${PATIENCE} ms: is it an ivshmem v2 host server?`)),
    );
    timer.after(PATIENCE);
    poller.add(connection.fd, EPOLLIN, onReadable);
  } catch (error) {
    fail(error as Error);
  }
  return {
    cancel() {
      if (timer !== undefined) giveUp();
    },
  };
}

function withRemedy(error: Error): Error {
  if (!(error instanceof SystemCallError) || error.syscall !== 'connect') return error;
  return new SystemCallError(error.syscall, error.subject, error.errno, connectRemedies[error.code]);
}

function introduce(
  received: ReceivedMessage,
  server: ServerAddress,
  poller: Poller,
  connection: ServerConnection,
  trust: ServerTrust,
  readiness: PortReadiness,
): ServerPort {
  const { message, fd } = received;
  if (message.type !== 'init') throw new ServerProtocolError(`server sent ${message.type} before INIT`);
  try {
    trust.checkMemory(isSealed(fd!));
  } catch (error) {
    closeFd(fd!);
    throw error;
  }
  const memory = new SharedMemory(fd!, message.id, message.maxPeers, message.outputSectionSize);
  return new ServerPort(message, server, memory, poller, connection, readiness);
}
