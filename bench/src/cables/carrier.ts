import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Netns } from '@ivshmem/linux/network';

/** A process that carries frames. */
export interface Carrier {
  readonly pid: number;
  /** Resolves with its first line of output for which `matches` holds; rejects if it ends before, or after a minute. */
  line(matches: (text: string) => boolean): Promise<string>;
  /** To its standard input. */
  write(text: string): void;
  /** Ends it in order. */
  stop(): Promise<void>;
}

/** How long to wait for a line that must come, in ms. */
const PATIENCE = 60_000;

const running = new Set<ChildProcess>();
// Stops all carriers however this process ends, except by SIGKILL.
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export interface CarrierOptions {
  readonly netns?: Netns;
  /** Its descriptors from 3 on. */
  readonly fds?: readonly number[];
}

/** Starts a program. Its standard input stays open until it is stopped, or until this process is gone. */
export function startCarrier(
  [file, ...argv]: readonly [string, ...string[]],
  { netns, fds = [] }: CarrierOptions = {},
): Carrier {
  // In a separate process group, so that Ctrl-C reaches only the benchmark, which then stops it.
  const start = () => spawn(file, argv, { stdio: ['pipe', 'pipe', 'pipe', ...fds], detached: true });
  const child = netns === undefined ? start() : netns.run(start);
  running.add(child);
  const { stdin, stdout, stderr } = child as typeof child & ChildProcessWithoutNullStreams;
  stdin.on('error', () => {});
  const lines: string[] = [];
  const errors: string[] = [];
  const listeners = new Set<() => void>();
  createInterface(stdout).on('line', (text) => {
    lines.push(text);
    for (const look of listeners) look();
  });
  createInterface(stderr).on('line', (text) => errors.push(text));
  const ended = once(child, 'close')
    .catch((error: Error) => errors.push(error.message))
    .then(() => {
      running.delete(child);
    });
  return {
    pid: child.pid ?? 0,
    line: (matches) =>
      new Promise((resolve, reject) => {
        const finish = () => {
          clearTimeout(timer);
          listeners.delete(look);
        };
        const fail = (why: string) => {
          finish();
          reject(new Error(`${file} ${why}: ${errors.concat(lines).at(-1) ?? 'no output'}`));
        };
        const look = () => {
          const found = lines.find(matches);
          if (found === undefined) return;
          finish();
          resolve(found);
        };
        const timer = setTimeout(() => fail('does not get ready'), PATIENCE);
        listeners.add(look);
        look();
        ended.then(() => fail('has ended'));
      }),
    write: (text) => {
      stdin.write(text);
    },
    async stop() {
      child.kill('SIGTERM');
      stdin.end();
      await ended;
    },
  };
}
