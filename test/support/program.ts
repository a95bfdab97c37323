import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export const COMMAND = fileURLToPath(new URL('../../packages/cli/dist/bin/ivshmem.js', import.meta.url));
/** How long to wait for a line that must come, in ms. */
const PATIENCE = 60_000;

/** How a process ended. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A line of output, parsed if it is JSON. */
// biome-ignore lint/suspicious/noExplicitAny: tests look for what they expect in it.
export type Line = any;

/** `ivshmem` in a process of its own, followed by what it prints. */
export class Program {
  readonly child: ChildProcess;
  readonly lines: Line[] = [];
  readonly exited: Promise<Exit>;
  #stdout = '';
  #stderr = '';
  #onLine = new Set<() => void>();
  #ended = false;

  constructor(argv: readonly string[], options: SpawnOptions = {}, command = [process.execPath, COMMAND]) {
    const [file, ...before] = command;
    this.child = spawn(file!, [...before, ...argv], { stdio: 'pipe', ...options });
    this.child.stdin?.on('error', () => {});
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
    });
    if (this.child.stdout !== null) {
      createInterface(this.child.stdout).on('line', (text) => {
        this.#stdout += `${text}\n`;
        this.lines.push(text.startsWith('{') ? JSON.parse(text) : text);
        for (const look of this.#onLine) look();
      });
    }
    this.exited = once(this.child, 'close').then(([code, signal]) => {
      this.#ended = true;
      for (const look of this.#onLine) look();
      return { code, signal, stdout: this.#stdout, stderr: this.#stderr };
    });
  }

  get pid(): number {
    return this.child.pid!;
  }

  /** Resolves with the first line from number `from` on for which `matches` holds; rejects when it can't come any more. */
  line(matches: (line: Line) => boolean, from = 0): Promise<Line> {
    return new Promise((resolve, reject) => {
      let next = from;
      const finish = () => {
        clearTimeout(timer);
        this.#onLine.delete(look);
      };
      const fail = (why: string) => {
        finish();
        reject(new Error(`${why}: ${matches}\n${this.#stdout}${this.#stderr}`));
      };
      const look = () => {
        for (; next < this.lines.length; next++) {
          if (!matches(this.lines[next])) continue;
          finish();
          return resolve(this.lines[next]);
        }
        if (this.#ended) fail('the program ended before a line came');
      };
      const timer = setTimeout(() => fail(`no such line in ${PATIENCE} ms`), PATIENCE);
      this.#onLine.add(look);
      look();
    });
  }

  /** Ends it with a signal, unless it has ended already. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Exit> {
    this.child.kill(signal);
    return this.exited;
  }
}

/** Runs `ivshmem` to its end. */
export function run(argv: readonly string[], options: SpawnOptions = {}): Promise<Exit> {
  const program = new Program(argv, options);
  program.child.stdin?.end();
  return program.exited;
}
