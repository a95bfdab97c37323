import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { HostProgram } from './host-program.ts';
import { type Line, Lines } from './lines.ts';
import { accelerator, qemuCommand } from './qemu.ts';
import type { VmSoftware } from './software.ts';
import { removeDirectory, temporaryDirectory } from './temporary-directory.ts';

/** MiB; the file system lives in memory, and the kernel lends it half. */
const MEMORY = 512;
/** How long a guest may take from its start to its first line, in ms. */
const BOOT_PATIENCE = 120_000;
/** How many lines of QEMU and of the kernel are shown with an error. */
const WORDS = 15;

export interface GuestOptions {
  /** For messages. */
  readonly name: string;
  /** Further QEMU arguments: see {@link ./qemu.ts}. */
  readonly devices: readonly string[];
  /** An IOMMU, which interrupts through vfio-pci require. Default: true. */
  readonly iommu?: boolean;
}

/** A command that runs in a guest. */
export interface Job {
  /** What it prints, on standard output and standard error. */
  readonly output: Lines;
  /** Resolves with the exit status; rejects where the guest has gone first. */
  readonly exited: Promise<number>;
  /** Sends a signal to it and all that it has started. */
  kill(signal: 'TERM' | 'KILL' | 'STOP' | 'CONT'): Promise<void>;
}

interface RunningJob {
  readonly output: Lines;
  readonly exited: (status: number | Error) => void;
}

/** A virtual machine under stock QEMU, with Debian's kernel, that commands can be run in. */
export class Guest {
  readonly name: string;
  readonly qemu: HostProgram;
  readonly #directory: string;
  readonly #server: Server;
  readonly #jobs = new Map<number, RunningJob>();
  readonly #boots = new Lines('guest');
  #socket: Socket | undefined;
  #nextJob = 1;

  private constructor(software: VmSoftware, options: GuestOptions) {
    this.name = options.name;
    this.#directory = temporaryDirectory();
    const jobs = join(this.#directory, 'jobs');
    this.#server = createServer((socket) => this.#listen(socket)).listen(jobs);
    const { argv, env } = qemuCommand(software.tree, {
      accelerator: accelerator(),
      memory: MEMORY,
      image: software.image,
      iommu: options.iommu ?? true,
      jobs,
      devices: options.devices,
    });
    this.qemu = new HostProgram(`guest ${this.name}`, argv, env);
    this.qemu.exited
      .catch(() => {})
      .finally(() => {
        const { signalCode, exitCode } = this.qemu.child;
        const reason = `the virtual machine has ended (${signalCode ?? exitCode}): ${this.#lastWords()}`;
        this.#abandonJobs(reason);
        this.#boots.end(reason);
        this.#socket?.destroy();
        this.#server.close();
        removeDirectory(this.#directory);
      });
  }

  /** Starts a guest; resolves when it accepts commands. If it does not start, cleans up and rejects. */
  static async start(software: VmSoftware, options: GuestOptions): Promise<Guest> {
    const guest = new Guest(software, options);
    try {
      await guest.#boots.wait('end of booting', (line) => line === '!ready', 0, BOOT_PATIENCE);
      return guest;
    } catch (error) {
      await guest.stop();
      throw new Error(`guest ${options.name} did not start: ${guest.#lastWords()}`, { cause: error });
    }
  }

  /** Starts a shell command. */
  job(command: string): Job {
    const number = this.#nextJob++;
    const output = new Lines(`guest ${this.name}: ${command}`);
    const exited = new Promise<number>((resolve, reject) => {
      const finish = (status: number | Error) => {
        this.#jobs.delete(number);
        output.end(status instanceof Error ? status.message : `it has ended with status ${status}`);
        if (status instanceof Error) reject(status);
        else resolve(status);
      };
      this.#jobs.set(number, { output, exited: finish });
    });
    exited.catch(() => {});
    if (this.#socket?.writable) this.#socket.write(`job ${number} ${quoted(command)}\n`);
    else this.#jobs.get(number)!.exited(new Error(`guest ${this.name} is not running`));
    return {
      output,
      exited,
      kill: async (signal) => {
        await this.run(`kill -${signal} -$(cat /run/job.${number}) 2> /dev/null; true`);
      },
    };
  }

  /** Runs a shell command to its end and returns what it printed. Rejects where its exit status is not 0. */
  async run(command: string): Promise<string> {
    const { output, exited } = this.job(command);
    const status = await exited;
    if (status === 0) return output.text;
    throw new Error(`guest ${this.name}: ${command}: exit status ${status}\n${output.text}`);
  }

  /** Resets the machine, as at the push of a button, and resolves when it takes commands again. */
  async reboot(): Promise<void> {
    const from = this.#boots.all.length;
    this.job('echo 1 > /proc/sys/kernel/sysrq; echo b > /proc/sysrq-trigger');
    await this.#boots.wait('end of booting', (line) => line === '!ready', from, BOOT_PATIENCE);
  }

  /** Pulls the plug; resolves when the process is gone and its files are removed. */
  async stop(): Promise<void> {
    await this.qemu.stop('SIGKILL').catch(() => {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #listen(socket: Socket): void {
    this.#socket = socket;
    socket.on('error', () => {});
    createInterface(socket).on('line', (line) => this.#take(line));
  }

  #take(line: Line): void {
    if (line === '!ready') {
      this.#abandonJobs('the guest was restarted');
      this.#boots.push(line);
      return;
    }
    const [, number, kind, text] = /^(\d+)([|!])(.*)$/.exec(line) ?? [];
    const job = this.#jobs.get(Number(number));
    if (job === undefined) return;
    if (kind === '|') job.output.push(text!);
    else job.exited(Number(text));
  }

  #abandonJobs(reason: string): void {
    for (const { exited } of [...this.#jobs.values()]) exited(new Error(`guest ${this.name}: ${reason}`));
  }

  /** What QEMU said first (when it dies, a dump of the processor follows) and the kernel last. */
  #lastWords(): string {
    const { errors, output } = this.qemu;
    return [...errors.all.slice(0, WORDS), ...output.all.slice(-WORDS)].join('\n').trim();
  }
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
