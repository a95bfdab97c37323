import type { PeerCredentials } from '@ivshmem/linux/socket';

/** A connected client. */
export interface Peer {
  /** 0 … maxPeers - 1: the lowest ID that was free when it connected. */
  readonly id: number;
  /** Process at the time of connect(2); 0 if it is in another PID namespace. */
  readonly pid: number;
  /** Effective user at the time of connect(2). */
  readonly uid: number;
  /** Effective group at the time of connect(2). */
  readonly gid: number;
  /** When it connected. */
  readonly since: Date;
  /** Its entry in the state table when this was read, any u32: the peer writes it. */
  readonly state: number;
  /** Number of messages pending for it. */
  readonly waiting: number;
}

/**
 * Why a peer is gone. `disconnected`: it closed its connection or died; `sent-data`: it sent data, which the protocol does
 * not allow; `not-reading`: it did not read its messages and was evicted.
 */
export type DepartureCause = 'disconnected' | 'sent-data' | 'not-reading';

/**
 * Why a connection was refused. `not-allowed`: not in `allow`; `no-free-id`: all IDs are taken; `descriptors`: none are
 * left; `gone`: it disconnected, or sent data, before it was accepted; `error`: a system call failed.
 */
export type RefusalCause = 'not-allowed' | 'no-free-id' | 'descriptors' | 'gone' | 'error';

/** Events of a host server, in the order in which they happen. */
export type HostServerEvent =
  | {
      readonly type: 'listening';
      readonly socketPath: string;
      /** Description of the shared memory, such as `sealed memfd`. */
      readonly memory: string;
      /** Size of the shared memory in bytes. */
      readonly size: number;
    }
  /** The server serves the peers of an earlier process, from a descriptor store. */
  | { readonly type: 'continued'; readonly peers: number }
  | { readonly type: 'peer-joined'; readonly peer: Peer }
  | {
      readonly type: 'peer-gone';
      readonly id: number;
      readonly cause: DepartureCause;
      readonly reason: string;
      /** When it connected. */
      readonly since: Date;
    }
  /** A connection was closed before anything was sent to it. */
  | {
      readonly type: 'refused';
      readonly credentials: PeerCredentials | null;
      readonly cause: RefusalCause;
      readonly reason: string;
    }
  /** A problem that does not stop the server. */
  | { readonly type: 'warning'; readonly text: string }
  /** The server has ended, and its peers stay connected to what is in the descriptor store. */
  | { readonly type: 'suspended'; readonly peers: number }
  | { readonly type: 'closed' };

/** One line for the log. */
export function eventText(event: HostServerEvent): string {
  switch (event.type) {
    case 'listening':
      return `listening at ${event.socketPath}: ${event.size} bytes, ${event.memory}`;
    case 'continued':
      return `continued after a restart: ${count(event.peers)} still connected`;
    case 'peer-joined':
      return `peer ${event.peer.id} joined: pid ${event.peer.pid}, uid ${event.peer.uid}`;
    case 'peer-gone':
      return `peer ${event.id} gone: ${event.reason}`;
    case 'refused': {
      const origin = event.credentials === null ? '' : ` of pid ${event.credentials.pid}`;
      return `connection${origin} refused: ${event.reason}`;
    }
    case 'warning':
      return `warning: ${event.text}`;
    case 'suspended':
      return `stopped: the next process continues with ${count(event.peers)}`;
    case 'closed':
      return 'closed';
  }
}

function count(peers: number): string {
  return `${peers} peer${peers === 1 ? '' : 's'}`;
}
