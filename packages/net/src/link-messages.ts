import type { DescriptorStoreHandle } from '@ivshmem/linux/process';
import type { HandshakeStatus } from '@ivshmem/transport/protocol';
import type { LinkOptions } from './link-options.ts';
import type { Offload } from './offload.ts';

/** Input of a link's worker. */
export interface WorkerInput {
  readonly options: Omit<LinkOptions, 'store'>;
  readonly counters: SharedArrayBuffer;
  /** Of the options' store. */
  readonly store: DescriptorStoreHandle | undefined;
}

/** Properties of an Ethernet link with any kind of end, known once its port is open. */
export interface EthernetInfo {
  /** The ID of this side, 0 or 1. */
  readonly id: number;
  /** The MTU in use, in bytes; before the first peer, the one that this side will announce. */
  readonly mtu: number;
  /** Size of each output section in bytes. */
  readonly outputSectionSize: number;
  /** Entries of each ring. */
  readonly queueLength: number;
  readonly vectors: number;
}

/** Properties of a link whose end is a TAP interface. */
export interface LinkInfo extends EthernetInfo {
  /** The interface's name. */
  readonly tap: string;
}

/** The state of a link. */
export interface LinkStatus extends HandshakeStatus {
  /** Offloads in use; empty while the carrier is off or if the peer does not support the extension. */
  readonly offloads: readonly Offload[];
}

/** A report of a link to the code that observes it; if the link runs in a worker, a message to the main thread. */
export type WorkerMessage<Info = LinkInfo> =
  | { readonly type: 'up'; readonly info: Info }
  | { readonly type: 'state'; readonly status: LinkStatus }
  | { readonly type: 'log'; readonly text: string };
