import type { HandshakeStatus } from '@ivshmem/transport/protocol';
import type { LinkOptions } from './link-options.ts';
import type { Offload } from './offload.ts';

/** What the main thread gives a link's worker. */
export interface WorkerInput {
  readonly options: LinkOptions;
  readonly counters: SharedArrayBuffer;
}

/** What a link is, once its port is open. */
export interface LinkInfo {
  /** Own ID, 0 or 1. */
  readonly id: number;
  readonly tap: string;
  /** The MTU in use, in bytes; before the first peer, the one that this side will announce. */
  readonly mtu: number;
  /** Size of each output section in bytes. */
  readonly outputSectionSize: number;
  /** Entries of each ring. */
  readonly queueLength: number;
  readonly vectors: number;
}

/** What a link has come to. */
export interface LinkStatus extends HandshakeStatus {
  /** What the two sides do for one another; nothing while the carrier is off, or where the peer is no party to it. */
  readonly offloads: readonly Offload[];
}

/** What a link's worker tells the main thread. */
export type WorkerMessage =
  | { readonly type: 'up'; readonly info: LinkInfo }
  | { readonly type: 'state'; readonly status: LinkStatus }
  | { readonly type: 'log'; readonly text: string };
