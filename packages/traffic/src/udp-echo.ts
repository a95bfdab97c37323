import { parseIpAddress } from '@ivshmem/linux/network';
import { type EchoOptions, echoParameters, echoProgress } from './ping.ts';
import { runWorkers } from './run-workers.ts';
import type { EchoResult } from './worker/tasks.ts';

export interface UdpEchoOptions extends EchoOptions {
  /** Path of the network namespace that sends the requests: `Netns.path`. */
  readonly client: string;
  /** Path of the network namespace that replies. */
  readonly server: string;
  /** The server's address: `10.0.0.2` or `fd00::2`. */
  readonly address: string;
}

/**
 * Sends datagrams to an echo server and measures the round trips. Unlike a ping, this wakes a thread at each end. Throws
 * OptionError for bad options, and Error if an end cannot be set up.
 */
export async function udpEcho(options: UdpEchoOptions): Promise<EchoResult> {
  const { client, server, address, signal } = options;
  parseIpAddress(address);
  const [result] = await runWorkers(
    [
      { kind: 'udp-echo-client', netns: client, address, ...echoParameters(options) },
      { kind: 'udp-echo-server', netns: server, address },
    ],
    { signal, onProgress: echoProgress(options) },
  );
  return result as EchoResult;
}
