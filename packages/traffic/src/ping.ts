import { OptionError } from '@ivshmem/linux';
import { parseIpAddress } from '@ivshmem/linux/network';
import { RECEIVED, SENT } from './control.ts';
import { checkPayloadSize } from './numbered-payload.ts';
import { type RunOptions, runWorkers } from './run-workers.ts';
import type { EchoResult } from './worker/tasks.ts';

/** Options of tests that send requests and wait for the replies. */
export interface EchoOptions extends RunOptions {
  /** Number of requests, 1 or more. */
  readonly count: number;
  /** Payload in bytes, 8 … 65507. Default: 56. */
  readonly size?: number;
  /** Time between requests. Default: 0, which sends each as soon as the previous one is answered or has timed out. */
  readonly intervalMs?: number;
  /** Later replies are not counted. Default: 1000. */
  readonly timeoutMs?: number;
  readonly onProgress?: (progress: { readonly sent: number; readonly received: number }) => void;
}

export interface PingOptions extends EchoOptions {
  /** Path of the network namespace to send from: `Netns.path`. */
  readonly netns: string;
  /** `10.0.0.2` or `fd00::2` */
  readonly to: string;
}

/** Checks {@link EchoOptions} and fills in the defaults. Throws OptionError. */
export function echoParameters(options: EchoOptions) {
  const { count, size = 56, intervalMs = 0, timeoutMs = 1000 } = options;
  if (!Number.isInteger(count) || count < 1)
    throw new OptionError('count', `${count} requests: send 1 or more`);
  checkPayloadSize(size);
  if (!(intervalMs >= 0))
    throw new OptionError('intervalMs', `an interval of ${intervalMs} ms: must be 0 or more`);
  if (!(timeoutMs > 0))
    throw new OptionError('timeoutMs', `a time-out of ${timeoutMs} ms: must be more than 0`);
  return { count, size, intervalMs, timeoutMs };
}

/** Passes the counters of a run to {@link EchoOptions.onProgress}. */
export function echoProgress({ onProgress }: EchoOptions) {
  return (
    onProgress &&
    ((counters: Float64Array) => onProgress({ sent: counters[SENT]!, received: counters[RECEIVED]! }))
  );
}

/**
 * Sends ICMP or ICMPv6 echo requests, verifies every byte of the replies, and measures the round trips. Requires
 * CAP_NET_RAW. Throws OptionError for bad options, and Error if there is no route to the destination.
 */
export async function ping(options: PingOptions): Promise<EchoResult> {
  const { netns, to, signal } = options;
  parseIpAddress(to);
  const task = { kind: 'ping', netns, to, ...echoParameters(options) } as const;
  const [result] = await runWorkers([task], { signal, onProgress: echoProgress(options) });
  return result as EchoResult;
}
