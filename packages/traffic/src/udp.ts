import { randomInt } from 'node:crypto';
import { OptionError } from '@ivshmem/linux';
import { parseIpAddress } from '@ivshmem/linux/network';
import { RECEIVED, SENT } from './control.ts';
import { checkPayloadSize } from './numbered-payload.ts';
import { type RunOptions, runWorkers } from './run-workers.ts';
import { limits } from './tcp.ts';
import type { UdpReceiverResult } from './worker/tasks.ts';

export interface UdpTransferOptions extends RunOptions {
  /** Path of the network namespace that sends: `Netns.path`. */
  readonly from: string;
  /** Path of the network namespace that receives. */
  readonly to: string;
  /** The receiver's address: `10.0.0.2` or `fd00::2`. */
  readonly address: string;
  /** Payload of each datagram in bytes, 8 … 65507. */
  readonly size: number;
  /** How long to send. Exactly one of `seconds` and `count` is required. */
  readonly seconds?: number;
  /** Number of datagrams to send. */
  readonly count?: number;
  /** Datagrams per second. Default: as fast as the sending socket accepts them. */
  readonly rate?: number;
  /** Fill each datagram with a different pattern and compare every byte on arrival. */
  readonly verify?: boolean;
  readonly onProgress?: (progress: { readonly sent: number; readonly received: number }) => void;
}

export interface UdpTransferResult {
  readonly sent: number;
  /** Datagrams that arrived intact, without duplicates. */
  readonly received: number;
  /** Datagrams that never arrived. */
  readonly lost: number;
  /** Datagrams that arrived after a later one. */
  readonly reordered: number;
  readonly duplicates: number;
  /** Datagrams with a wrong length or token or, with `verify`, any other wrong byte. */
  readonly corrupted: number;
  /** Time from the first arrival to the last. */
  readonly seconds: number;
}

/**
 * Sends numbered datagrams from one network namespace to another, and counts those that arrive, are lost, reordered,
 * duplicated or corrupted. Throws OptionError for bad options, and Error if an end cannot be set up.
 */
export async function udpTransfer(options: UdpTransferOptions): Promise<UdpTransferResult> {
  const { from, to, address, size, signal, onProgress, verify = false } = options;
  const { rate = Number.POSITIVE_INFINITY } = options;
  parseIpAddress(address);
  checkPayloadSize(size);
  if (!(rate > 0))
    throw new OptionError('rate', `a rate of ${rate} datagrams per second: must be more than 0`);
  const { amount: count, seconds } = limits('count', options.count, options.seconds);
  const token = randomInt(2 ** 32);
  const [sent, arrived] = (await runWorkers(
    [
      { kind: 'udp-sender', netns: from, address, size, token, count, seconds, rate, verify },
      { kind: 'udp-receiver', netns: to, address, size, token, verify },
    ],
    {
      signal,
      onProgress:
        onProgress && ((counters) => onProgress({ sent: counters[SENT]!, received: counters[RECEIVED]! })),
    },
  )) as [number, UdpReceiverResult];
  const lost = Math.max(0, sent - arrived.received - arrived.corrupted);
  return { sent, lost, ...arrived };
}
