import { parseIpAddress } from '@ivshmem/linux/network';
import { type EchoOptions, echoParameters, echoProgress } from './ping.ts';
import { runWorkers } from './run-workers.ts';
import type { EchoResult } from './worker/tasks.ts';

export interface UdpEchoOptions extends EchoOptions {
  /** Path of the network namespace that asks: `Netns.path`. */
  readonly client: string;
  /** Path of the one that answers. */
  readonly server: string;
  /** The server's address: `10.0.0.2` or `fd00::2`. */
  readonly address: string;
}

/**
 * Sends datagrams to a process-to-process echo, and measures the round trips: unlike with a ping, a process is woken at
 * either end. Throws OptionError for bad options, and Error where an end can't be set up.
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
