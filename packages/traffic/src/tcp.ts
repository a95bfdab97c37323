import { OptionError } from '@ivshmem/linux';
import { parseIpAddress } from '@ivshmem/linux/network';
import { RECEIVED } from './control.ts';
import { type RunOptions, runWorkers } from './run-workers.ts';
import type { TcpServerResult } from './worker/tasks.ts';

export interface TcpTransferOptions extends RunOptions {
  /** Path of the network namespace that sends: `Netns.path`. */
  readonly from: string;
  /** Path of the network namespace that receives. */
  readonly to: string;
  /** The receiver's address: `10.0.0.2` or `fd00::2`. */
  readonly address: string;
  /** How long to send. Exactly one of `seconds` and `bytes` is required. */
  readonly seconds?: number;
  /** How much to send. */
  readonly bytes?: number;
  /** Send a pseudo-random stream and compare every byte on arrival. */
  readonly verify?: boolean;
  /** The largest TCP segment, in bytes (TCP_MAXSEG). */
  readonly maxSegment?: number;
  /** The sender's algorithm, such as `cubic` (TCP_CONGESTION). Default: that of its network namespace. */
  readonly congestionControl?: string;
  readonly onProgress?: (progress: { readonly bytes: number }) => void;
}

export interface TcpTransferResult {
  /** Bytes that arrived. */
  readonly bytes: number;
  /** From the connection to the end of the stream, at the receiver. */
  readonly seconds: number;
  readonly bitsPerSecond: number;
  /** With `verify`: whether all bytes sent have arrived, in order. */
  readonly checksumOk?: boolean;
}

/**
 * Sends a TCP stream from one network namespace to another, 256 KiB per call. Throws OptionError for bad options, and
 * Error if the kernel does not know the algorithm, the connection fails or breaks, or nothing moves for ten seconds.
 */
export async function tcpTransfer(options: TcpTransferOptions): Promise<TcpTransferResult> {
  const { from, to, address, signal, onProgress, verify = false, maxSegment = null } = options;
  const { congestionControl = null } = options;
  parseIpAddress(address);
  const { amount: bytes, seconds } = limits('bytes', options.bytes, options.seconds);
  const [sent, received] = (await runWorkers(
    [
      { kind: 'tcp-client', netns: from, address, bytes, seconds, verify, maxSegment, congestionControl },
      { kind: 'tcp-server', netns: to, address, verify, maxSegment },
    ],
    { signal, onProgress: onProgress && ((counters) => onProgress({ bytes: counters[RECEIVED]! })) },
  )) as [number, TcpServerResult];
  return {
    bytes: received.bytes,
    seconds: received.seconds,
    bitsPerSecond: (received.bytes * 8) / received.seconds,
    ...(verify ? { checksumOk: received.intact && received.bytes === sent } : {}),
  };
}

/** Returns the limits given by an amount or a duration; the one that is not given is Infinity. Throws OptionError. */
export function limits(what: string, amount: number | undefined, seconds: number | undefined) {
  if ((amount === undefined) === (seconds === undefined))
    throw new OptionError(what, `say either ${what} or seconds`);
  if (amount !== undefined && (!Number.isSafeInteger(amount) || amount < 1)) {
    throw new OptionError(what, `${amount} ${what}: must be 1 or more`);
  }
  if (seconds !== undefined && !(seconds > 0 && Number.isFinite(seconds))) {
    throw new OptionError('seconds', `${seconds} seconds: must be more than 0`);
  }
  return { amount: amount ?? Number.POSITIVE_INFINITY, seconds: seconds ?? Number.POSITIVE_INFINITY };
}
