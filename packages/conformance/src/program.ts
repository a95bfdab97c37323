import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { OptionError } from '@ivshmem/linux';
import { delay } from './pace.ts';

/** How long a program has to end after SIGTERM, in ms. */
const PATIENCE = 2000;
/** Bytes of standard error that are kept: the last ones. */
const KEPT = 4096;

/** Throws OptionError unless a command says where the path of a socket goes. */
export function checkCommand(option: string, command: string, placeholder: string): void {
  if (command.includes(placeholder)) return;
  throw new OptionError(option, `${option} ${JSON.stringify(command)}: must contain ${placeholder}`);
}

/** The quoted form of a path for a shell. */
const quoted = (path: string) => `'${path.replaceAll("'", "'\\''")}'`;

/** A program that the user has asked the kit to start, with all processes that it starts. */
export class Program implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  #errors = '';
  #ending: string | undefined;

  /** Starts `command` in a shell, with each placeholder, such as `{socket}`, replaced by a path. */
  constructor(command: string, paths: Readonly<Record<string, string>>) {
    let text = command;
    for (const [placeholder, path] of Object.entries(paths))
      text = text.replaceAll(placeholder, quoted(path));
    const stdio = ['ignore', 'ignore', 'pipe'] as const;
    this.#child = spawn('/bin/sh', ['-c', text], { detached: true, stdio: [...stdio] });
    this.#child.stderr!.setEncoding('utf8').on('data', (chunk: string) => {
      this.#errors = (this.#errors + chunk).slice(-KEPT);
    });
    this.#child.on('error', (error) => {
      this.#ending ??= error.message;
    });
    this.#ended = once(this.#child, 'close').catch(() => {});
    this.#child.on('exit', (code, signal) => {
      this.#ending ??= signal === null ? `exit code ${code}` : `signal ${signal}`;
    });
  }

  /** How it has ended, and the last line that it wrote to standard error; undefined while it runs. */
  get ending(): string | undefined {
    if (this.#ending === undefined) return undefined;
    const last = this.#errors.trimEnd().split('\n').at(-1);
    return last ? `${this.#ending}: ${last}` : this.#ending;
  }

  /** Sends a signal to it and all processes that it has started. */
  signal(name: NodeJS.Signals): void {
    if (this.#child.pid === undefined) return;
    try {
      process.kill(-this.#child.pid, name);
    } catch {
      // All of them have ended.
    }
  }

  /** Ends it: by `name` first, by SIGKILL if that has no effect. */
  async end(name: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.signal(name);
    await Promise.race([this.#ended, delay(PATIENCE)]);
    this.signal('SIGKILL');
    await this.#ended;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.end();
  }
}
