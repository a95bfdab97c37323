import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Lines } from './lines.ts';

const IVSHMEM = fileURLToPath(new URL('../../../packages/cli/dist/bin/ivshmem.js', import.meta.url));

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** A process on the host that does not outlive this one, whatever happens to it. */
export class HostProgram {
  readonly child: ChildProcess;
  /** What it prints on standard output. */
  readonly output: Lines;
  /** What it prints on standard error. */
  readonly errors: Lines;
  /** Resolves when it has ended and all output is there, with the exit code or the signal. */
  readonly exited: Promise<number | NodeJS.Signals>;

  /** Starts `argv`; `name` stands for it in error messages. */
  constructor(name: string, argv: readonly string[], env: NodeJS.ProcessEnv = {}) {
    this.output = new Lines(name);
    this.errors = new Lines(`${name}, standard error`);
    // Where this process is killed, the kernel ends the child.
    this.child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...argv], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    });
    running.add(this.child);
    createInterface(this.child.stdout!).on('line', (line) => this.output.push(line));
    createInterface(this.child.stderr!).on('line', (line) => this.errors.push(line));
    const missing = new Promise<never>((_, reject) => {
      this.child.once('error', (error: NodeJS.ErrnoException) => {
        const remedy = 'install it with "apt-get install util-linux"';
        reject(error.code === 'ENOENT' ? new Error(`setpriv: not found: ${remedy}`) : error);
      });
    });
    this.exited = Promise.race([once(this.child, 'close'), missing])
      .then(([code, signal]) => code ?? signal)
      .finally(() => {
        running.delete(this.child);
        const reason = `it has ended (${this.child.exitCode ?? this.child.signalCode})`;
        this.output.end(`${reason} ${this.errors.all.at(-1) ?? ''}`.trim());
        this.errors.end(reason);
      });
    this.exited.catch(() => {});
  }

  /** `ivshmem` with arguments. */
  static ivshmem(argv: readonly string[], env: NodeJS.ProcessEnv = {}): HostProgram {
    return new HostProgram(`ivshmem ${argv[0]}`, [process.execPath, IVSHMEM, ...argv], env);
  }

  get pid(): number {
    return this.child.pid!;
  }

  /** Ends it with a signal unless it has ended; resolves when it is gone. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | NodeJS.Signals> {
    this.child.kill(signal);
    return this.exited;
  }
}
