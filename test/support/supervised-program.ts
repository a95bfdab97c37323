import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeFd } from '@ivshmem/linux';
import { DescriptorKeeper, NotifySocket } from '@ivshmem/linux/process';
import { EPOLLIN, mainPoller } from '@ivshmem/linux/wait';
import { COMMAND } from './program.ts';

/**
 * `ivshmem` under a service manager that keeps its descriptors, and starts it again as soon as it has ended, at any rate: the
 * tests kill it.
 */
export class SupervisedProgram {
  readonly keeper = new DescriptorKeeper(1000);
  /** Of the next process that is started. */
  argv: readonly string[];
  readonly #notify: NotifySocket;
  #child: ChildProcess | undefined;
  readonly #over: Promise<void>;
  #stopping = false;
  readonly #onReady = new Set<() => void>();
  /** How often it was ready. */
  ready = 0;
  output = '';

  /** `notifyPath`: where to create the manager's socket. */
  constructor(notifyPath: string, argv: readonly string[]) {
    this.argv = argv;
    this.#notify = NotifySocket.listen(notifyPath);
    mainPoller.add(this.#notify.fd, EPOLLIN, () => this.#manage());
    this.#over = this.#run();
  }

  /** Of the process that runs now. */
  get pid(): number {
    return this.#child!.pid!;
  }

  /** Resolves when it has been ready `count` times. */
  async untilReady(count = this.ready + 1): Promise<void> {
    while (this.ready < count) await new Promise<void>((resolve) => this.#onReady.add(resolve));
  }

  kill(signal: NodeJS.Signals = 'SIGKILL'): void {
    this.#child?.kill(signal);
  }

  async #run(): Promise<void> {
    while (!this.#stopping) {
      const passed = this.keeper.duplicates();
      // The shell becomes the program.
      const script = 'LISTEN_PID=$$; export LISTEN_PID; exec "$@"';
      this.#child = spawn('/bin/sh', ['-c', script, 'sh', process.execPath, COMMAND, ...this.argv], {
        stdio: ['ignore', 'pipe', 'pipe', ...passed.map(({ fd }) => fd)],
        env: {
          ...process.env,
          NOTIFY_SOCKET: this.#notify.path,
          FDSTORE: '1000',
          LISTEN_FDS: String(passed.length),
          LISTEN_FDNAMES: passed.map(({ name }) => name).join(':'),
        },
      });
      for (const { fd } of passed) closeFd(fd);
      for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
        stream.setEncoding('utf8').on('data', (text: string) => {
          this.output += text;
        });
      }
      await once(this.#child, 'close');
      this.#manage();
    }
  }

  #manage(): void {
    for (let message = this.#notify.receive(); message !== null; message = this.#notify.receive()) {
      this.keeper.handle(message);
      if (message.variables.get('READY') !== '1') continue;
      this.ready++;
      for (const resolve of this.#onReady) resolve();
      this.#onReady.clear();
    }
  }

  /** Ends it for good, and what is kept. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.#stopping = true;
    this.kill(signal);
    await this.#over;
    mainPoller.remove(this.#notify.fd);
    this.#notify.close();
    this.keeper.close();
  }
}
