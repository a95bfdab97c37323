import { connect } from 'node:net';
import type { Peer } from '../server/events.ts';
import { CONTROL_SUFFIX } from './control-socket.ts';

/** The reply of a server's control socket. */
export interface PeerList {
  /** Name of the link. */
  readonly link: string;
  readonly socketPath: string;
  /** Size of the shared memory in bytes. */
  readonly size: number;
  /** In bytes. */
  readonly outputSectionSize: number;
  readonly maxPeers: number;
  readonly vectors: number;
  readonly protocol: number;
  readonly peers: readonly Peer[];
}

/** Time limit for the server to reply, in ms. */
const TIMEOUT = 5000;
/** Maximum size of a reply in bytes. */
const MAX_REPLY = 16 * 1024 * 1024;

/**
 * Queries the connected peers of the server at `socketPath` through its control socket. Rejects with an Error of one line
 * if there is no server, it has no control socket, or permission is denied.
 */
export async function queryPeers(socketPath: string): Promise<PeerList> {
  const path = `${socketPath}${CONTROL_SUFFIX}`;
  const text = await receiveAll(path);
  try {
    return decodePeerList(JSON.parse(text));
  } catch {
    throw new Error(`${path}: invalid reply: is it the socket of an ivshmem server?`);
  }
}

/** Checks a reply, since any process may listen at the path. Throws TypeError if it is not a peer list. */
function decodePeerList(list: Record<string, unknown>): PeerList {
  return {
    link: stringOf(list.link),
    socketPath: stringOf(list.socketPath),
    size: numberOf(list.size),
    outputSectionSize: numberOf(list.outputSectionSize),
    maxPeers: numberOf(list.maxPeers),
    vectors: numberOf(list.vectors),
    protocol: numberOf(list.protocol),
    peers: (list.peers as Record<string, unknown>[]).map((peer) => ({
      id: numberOf(peer.id),
      pid: numberOf(peer.pid),
      uid: numberOf(peer.uid),
      gid: numberOf(peer.gid),
      since: dateOf(peer.since),
      state: numberOf(peer.state),
      waiting: numberOf(peer.waiting),
    })),
  };
}

function stringOf(value: unknown): string {
  if (typeof value !== 'string') throw new TypeError('no string');
  return value;
}

function numberOf(value: unknown): number {
  if (!Number.isSafeInteger(value)) throw new TypeError('no whole number');
  return value as number;
}

function dateOf(value: unknown): Date {
  const date = new Date(stringOf(value));
  if (Number.isNaN(date.getTime())) throw new TypeError('no date');
  return date;
}

function receiveAll(path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    const chunks: Buffer[] = [];
    let length = 0;
    const fail = (reason: string) => {
      socket.destroy();
      reject(new Error(`${path}: ${reason}`));
    };
    socket.setTimeout(TIMEOUT, () => fail(`no reply within ${TIMEOUT / 1000} s`));
    socket.on('data', (chunk) => {
      chunks.push(chunk);
      length += chunk.length;
      if (length > MAX_REPLY) fail(`reply longer than ${MAX_REPLY} bytes`);
    });
    socket.on('end', () => {
      socket.destroy();
      resolve(Buffer.concat(chunks).toString());
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      const code = error.code ?? error.message;
      const remedy = REMEDIES[code];
      fail(remedy === undefined ? code : `${code}: ${remedy}`);
    });
  });
}

const REMEDIES: Record<string, string> = {
  ENOENT: 'no server with a control socket: start one with `ivshmem server`, or give its socket with -S',
  ECONNREFUSED: 'the server is dead: start it again',
  EACCES: 'permission denied: run it as the user of the server',
};
