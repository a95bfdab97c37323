import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { closeFd } from '@ivshmem/linux';
import { DescriptorKeeper, NotifySocket, raiseOpenFilesLimit } from '@ivshmem/linux/process';
import { EPOLLIN, mainPoller } from '@ivshmem/linux/wait';
import { EXIT_FAILURE, EXIT_OK, EXIT_USAGE } from '../exit.ts';
import { type ProcessEnd, startChild } from './child-process.ts';
import { RestartPolicy } from './restart-policy.ts';
import { StandbyProcess } from './standby-process.ts';

/** Exit codes after which another try would not help: those of a wrong command line, of env(1) and of the shell. */
const FINAL = [EXIT_OK, EXIT_USAGE, 126, 127];
const FORWARDED = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;
/** Ends the program by SIGTERM and starts it again. */
const RESTART = 'SIGUSR1';
/** As the shell does, to exit with after a signal: 128 and its number. */
const SIGNAL_NUMBERS: Partial<Record<NodeJS.Signals, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGKILL: 9,
  SIGTERM: 15,
};

export interface SupervisorOptions {
  /** The program and its arguments. */
  readonly command: readonly string[];
  /** How many descriptors are kept at most. */
  readonly descriptors: number;
  /** Whether another process of the program, which must be one of this package, waits loaded for the end of the first. */
  readonly standby: boolean;
  /** How many failures in a row end the supervisor. */
  readonly tries: number;
  /** Called with one line for each event. */
  readonly log: (text: string) => void;
}

/**
 * Runs a program, keeps its descriptors, and starts it again if it fails: what systemd does for a service with Restart=on-failure
 * and FileDescriptorStoreMax=. It never reads what goes through the descriptors.
 */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #folder = mkdtempSync(join(tmpdir(), 'ivshmem-supervise-'));
  readonly #notify: NotifySocket;
  readonly #keeper: DescriptorKeeper;
  readonly #policy: RestartPolicy;
  #child: ChildProcess | undefined;
  #standby: StandbyProcess | undefined;
  #readyAt: number | undefined;
  #stopping = false;
  #restarting = false;
  #wasFull = false;
  /** Ends the pause before the next start. */
  #wake = () => {};

  /** Throws SystemCallError. */
  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#keeper = new DescriptorKeeper(options.descriptors);
    this.#policy = new RestartPolicy(options.tries);
    try {
      this.#notify = NotifySocket.listen(join(this.#folder, 'notify'));
    } catch (error) {
      rmSync(this.#folder, { recursive: true });
      throw error;
    }
  }

  /** Runs the program until it is not to be started again. Resolves with the exit code. */
  async run(): Promise<number> {
    raiseOpenFilesLimit();
    const signals = [RESTART, ...FORWARDED] as const;
    const handlers = signals.map((signal) => [signal, () => this.#signal(signal)] as const);
    for (const [signal, handler] of handlers) process.on(signal, handler);
    mainPoller.add(this.#notify.fd, EPOLLIN, () => this.#readNotifications());
    try {
      for (;;) {
        const end = await this.#runOnce();
        if (this.#restarting && !this.#stopping) continue;
        const exitCode = this.#exitCode(end);
        if (exitCode !== null) return exitCode;
        const delay = this.#policy.failed({
          readyFor: this.#readyAt === undefined ? undefined : performance.now() - this.#readyAt,
        });
        if (delay === null) return this.#giveUp(end);
        this.#options.log(`${this.#name} has ended by ${describe(end)}; starting it again`);
        if (delay > 0) await this.#pause(delay);
        if (this.#stopping) return EXIT_OK;
      }
    } finally {
      for (const [signal, handler] of handlers) process.off(signal, handler);
      this.#closeStandby();
      mainPoller.remove(this.#notify.fd);
      this.#notify.close();
      this.#keeper.close();
      rmSync(this.#folder, { recursive: true, force: true });
    }
  }

  get #name(): string {
    return this.#options.command.slice(0, 2).join(' ');
  }

  async #runOnce(): Promise<ProcessEnd> {
    this.#readyAt = undefined;
    this.#restarting = false;
    this.#child = this.#start();
    const child = this.#child;
    const end = await new Promise<ProcessEnd>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signal) => resolve({ code, signal }));
      // A standby process may have ended meanwhile.
      if (child.exitCode !== null || child.signalCode !== null)
        resolve({ code: child.exitCode, signal: child.signalCode });
    });
    // What it sent last is in the socket by now.
    this.#readNotifications();
    this.#child = undefined;
    return end;
  }

  get #variables(): Record<string, string> {
    return { NOTIFY_SOCKET: this.#notify.path, FDSTORE: String(this.#keeper.limit) };
  }

  #start(): ChildProcess {
    const passed = this.#keeper.duplicates();
    try {
      const loaded = this.#standby?.use(passed) ?? null;
      this.#standby = undefined;
      return loaded ?? startChild(this.#options.command, passed, this.#variables);
    } finally {
      for (const { fd } of passed) closeFd(fd);
    }
  }

  /** The program is ready: what is started now does not delay it. */
  #ready(): void {
    if (this.#readyAt !== undefined) return;
    this.#readyAt = performance.now();
    if (!this.#options.standby || this.#stopping) return;
    this.#standby = new StandbyProcess(this.#options.command, this.#variables);
  }

  #closeStandby(): void {
    this.#standby?.close();
    this.#standby = undefined;
  }

  /** Null if the program is to be started again. */
  #exitCode({ code, signal }: ProcessEnd): number | null {
    if (code !== null && (this.#stopping || FINAL.includes(code))) return code;
    return this.#stopping ? 128 + (SIGNAL_NUMBERS[signal!] ?? 0) : null;
  }

  #giveUp(end: ProcessEnd): number {
    const { tries, log } = this.#options;
    log(
      tries === 1
        ? `${this.#name} has ended by ${describe(end)}; it is not started again`
        : `${this.#name} has failed ${tries} times in a row, at last by ${describe(end)}: giving up`,
    );
    return EXIT_FAILURE;
  }

  #readNotifications(): void {
    for (;;) {
      try {
        const notification = this.#notify.receive();
        if (notification === null) return;
        if (notification.pid !== this.#child?.pid) {
          for (const fd of notification.fds) closeFd(fd);
          continue;
        }
        if (notification.variables.get('READY') === '1') this.#ready();
        if (this.#keeper.handle(notification) > 0) this.#reportFull();
      } catch (error) {
        this.#options.log(`a message of ${this.#name} is lost: ${(error as Error).message}`);
      }
    }
  }

  #reportFull(): void {
    if (this.#wasFull) return;
    this.#wasFull = true;
    const { descriptors } = this.#options;
    this.#options.log(
      `${this.#name} has more than ${descriptors} descriptors to keep: a restart will not continue everything; raise --descriptors`,
    );
  }

  #signal(signal: NodeJS.Signals): void {
    // An upgrade may be the reason: what is loaded is the old program.
    if (signal !== 'SIGHUP') this.#closeStandby();
    if (signal === RESTART) this.#restarting = true;
    else if (signal !== 'SIGHUP') this.#stopping = true;
    this.#child?.kill(signal === RESTART ? 'SIGTERM' : signal);
    this.#wake();
  }

  async #pause(delay: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, delay);
      this.#wake = () => {
        if (!this.#stopping) return;
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = () => {};
  }
}

function describe({ code, signal }: ProcessEnd): string {
  return signal ?? `exit code ${code}`;
}
