import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const COMMAND = fileURLToPath(new URL('../../packages/cli/dist/bin/ivshmem.js', import.meta.url));

/** A line of the server's log. */
export interface LogLine {
  readonly level: string;
  readonly type?: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** `ivshmem server` in a process of its own. */
export class ServerProcess {
  readonly child: ChildProcess;
  readonly #listeners = new Set<(line: LogLine) => void>();
  readonly exited: Promise<unknown>;

  private constructor(child: ChildProcess) {
    this.child = child;
    this.exited = once(child, 'exit');
    createInterface({ input: child.stdout! }).on('line', (text) => {
      const line = JSON.parse(text) as LogLine;
      for (const listener of this.#listeners) listener(line);
    });
  }

  /**
   * Starts it in the foreground with a JSON log, and waits until `isReady` has seen its line. `limit` lowers
   * RLIMIT_NOFILE, by prlimit(1). Rejects with its output on stderr if it ends instead.
   */
  static async start(
    options: readonly string[],
    isReady: (line: LogLine) => boolean = ({ type }) => type === 'listening',
    limit?: number,
  ): Promise<ServerProcess> {
    const command = [process.execPath, COMMAND, 'server', '-F', '--json', ...options];
    if (limit !== undefined) command.unshift('prlimit', `--nofile=${limit}:${limit}`);
    const child = spawn(command[0]!, command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
    let stderr = '';
    child.stderr!.on('data', (text) => {
      stderr += text;
    });
    const server = new ServerProcess(child);
    const failed = server.exited.then(() => Promise.reject(new Error(`the server has ended: ${stderr}`)));
    await Promise.race([server.line(isReady), failed]);
    failed.catch(() => {});
    return server;
  }

  /** Calls `listener` with each line of its log from now on. */
  follow(listener: (line: LogLine) => void): void {
    this.#listeners.add(listener);
  }

  /** The next line of its log that `matches`. */
  line(matches: (line: LogLine) => boolean): Promise<LogLine> {
    return new Promise((resolve) => {
      const listener = (line: LogLine) => {
        if (!matches(line)) return;
        this.#listeners.delete(listener);
        resolve(line);
      };
      this.#listeners.add(listener);
    });
  }

  get pid(): number {
    return this.child.pid!;
  }

  /** In bytes. */
  get residentMemory(): number {
    return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${this.pid}/status`, 'utf8'))![1]) * 1024;
  }

  get openFds(): number {
    return readdirSync(`/proc/${this.pid}/fd`).length;
  }

  /** Ends it as a service manager does. */
  async stop(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill('SIGTERM');
    await this.exited;
  }
}
