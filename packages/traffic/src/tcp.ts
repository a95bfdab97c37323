import { OptionError } from '@ivshmem/linux';
import { parseIpAddress } from '@ivshmem/linux/network';
import { RECEIVED } from './control.ts';
import { type RunOptions, runWorkers } from './run-workers.ts';
import type { TcpServerResult } from './worker/tasks.ts';

export interface TcpTransferOptions extends RunOptions {
  /** Path of the network namespace that sends: `Netns.path`. */
  readonly from: string;
  /** Path of the one that receives. */
  readonly to: string;
  /** The receiver's address: `10.0.0.2` or `fd00::2`. */
  readonly address: string;
  /** How long to send. One of `seconds` and `bytes` must be there. */
  readonly seconds?: number;
  /** How much to send. */
  readonly bytes?: number;
  /** Send a pseudo-random stream, and compare every byte of it on arrival. */
  readonly verify?: boolean;
  /** The largest TCP segment, in bytes (TCP_MAXSEG). */
  readonly maxSegment?: number;
  /** The sender's algorithm, such as `cubic` (TCP_CONGESTION); the default of its network namespace unless given. */
  readonly congestionControl?: string;
  readonly onProgress?: (progress: { readonly bytes: number }) => void;
}

export interface TcpTransferResult {
  /** What arrived. */
  readonly bytes: number;
  /** From the connection to the end of the stream, at the receiver. */
  readonly seconds: number;
  readonly bitsPerSecond: number;
  /** With `verify`: whether every byte that was sent arrived, in its place. */
  readonly checksumOk?: boolean;
}

/**
 * Sends a TCP stream from one network namespace to another, with 256 KiB at a time. Throws OptionError for bad options,
 * and Error if the kernel does not know the algorithm, it can't connect, the connection breaks, or nothing moves for ten
 * seconds.
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

/** An amount or a duration, whichever is there; the other one is Infinity. Throws OptionError. */
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
