import type { PeerCredentials } from '@ivshmem/linux/socket';

/** A connected client. */
export interface Peer {
  /** 0 … maxPeers - 1: the lowest that was free. */
  readonly id: number;
  /** Process and user at the time of connect(2). `pid` is 0 for a process in another PID namespace. */
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  /** When it connected. */
  readonly since: Date;
  /** Its entry of the state table when this was made, an arbitrary u32. */
  readonly state: number;
  /** How many messages wait for it to read. */
  readonly waiting: number;
}

/**
 * Why a peer has gone: it closed its connection or died; it sent something, which no client does; it left its messages
 * unread until one of the limits, and was evicted.
 */
export type DepartureCause = 'disconnected' | 'sent-data' | 'not-reading';

/**
 * Why a client was turned away: not on the list of those who may; all IDs taken; no descriptors left for it;
 * disconnected again, or sending, before it was its turn; a failure of the system.
 */
export type RefusalCause = 'not-allowed' | 'no-free-id' | 'descriptors' | 'gone' | 'error';

/** What happens to a host server. */
export type HostServerEvent =
  | {
      readonly type: 'listening';
      readonly socketPath: string;
      readonly memory: string;
      readonly size: number;
    }
  | { readonly type: 'peer-joined'; readonly peer: Peer }
  | {
      readonly type: 'peer-gone';
      readonly id: number;
      readonly cause: DepartureCause;
      readonly reason: string;
      /** When it had connected. */
      readonly since: Date;
    }
  /** A client was turned away; it has received nothing. */
  | {
      readonly type: 'refused';
      readonly credentials: PeerCredentials | null;
      readonly cause: RefusalCause;
      readonly reason: string;
    }
  /** The server goes on, but something is not as it should be. */
  | { readonly type: 'warning'; readonly text: string }
  | { readonly type: 'closed' };

/** One line for the log. */
export function eventText(event: HostServerEvent): string {
  switch (event.type) {
    case 'listening':
      return `listening at ${event.socketPath}: ${event.size} bytes, ${event.memory}`;
    case 'peer-joined':
      return `peer ${event.peer.id} joined: pid ${event.peer.pid}, uid ${event.peer.uid}`;
    case 'peer-gone':
      return `peer ${event.id} gone: ${event.reason}`;
    case 'refused': {
      const who = event.credentials === null ? '' : ` of pid ${event.credentials.pid}`;
      return `connection${who} refused: ${event.reason}`;
    }
    case 'warning':
      return `warning: ${event.text}`;
    case 'closed':
      return 'closed';
  }
}
