import { connect } from 'node:net';
import type { Peer } from '../server/events.ts';
import { CONTROL_SUFFIX } from './control-socket.ts';

/** What a server tells about itself at its control socket. */
export interface PeerList {
  readonly link: string;
  readonly socketPath: string;
  /** In bytes. */
  readonly size: number;
  readonly outputSectionSize: number;
  readonly maxPeers: number;
  readonly vectors: number;
  readonly protocol: number;
  readonly peers: readonly Peer[];
}

/** How long a server may take, in ms. */
const PATIENCE = 5000;
const MAX_ANSWER = 16 * 1024 * 1024;

/**
 * Asks the server that listens at `socketPath` who is connected, at its control socket. Rejects with an Error of one
 * line: no server there, one without control socket, no permission.
 */
export async function queryPeers(socketPath: string): Promise<PeerList> {
  const path = `${socketPath}${CONTROL_SUFFIX}`;
  const text = await receiveAll(path);
  try {
    return decodePeerList(JSON.parse(text));
  } catch {
    throw new Error(`${path}: the answer is no list of peers: is it an ivshmem server's socket?`);
  }
}

/** Any process can listen at a path: what comes from there is what its type says, or TypeError is thrown. */
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
    socket.setTimeout(PATIENCE, () => fail(`no answer in ${PATIENCE / 1000} s`));
    socket.on('data', (chunk) => {
      chunks.push(chunk);
      length += chunk.length;
      if (length > MAX_ANSWER) fail('the answer does not end');
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
  ENOENT: 'no server with a control socket there: start it with `ivshmem server`, or say where it is by -S',
  ECONNREFUSED: 'the server is dead: start it again',
  EACCES: 'only the user of the server may ask',
};
