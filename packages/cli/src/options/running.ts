import type { ListenAddress } from '@ivshmem/monitor/listen-address';
import type { Command } from 'commander';
import { listenAddress, seconds } from './values.ts';

/** The options of a command that runs until it is stopped, as commander returns them. */
export interface RunningOptions {
  /** Interval, in seconds. */
  stats?: number;
  json?: boolean;
  metrics?: ListenAddress;
  untilEof?: boolean;
}

/** Adds them to a command. */
export function addRunningOptions(command: Command): Command {
  return command
    .option('--stats <seconds>', 'print the counters every 1 to 86400 seconds (default: at the end)', seconds)
    .option('--json', 'print one JSON object per line')
    .option(
      '--metrics <port|addr:port>',
      'serve /metrics for Prometheus, and /healthz (default address: 127.0.0.1)',
      listenAddress,
    )
    .option('--until-eof', 'also stop when standard input ends, for programs that start this one');
}
