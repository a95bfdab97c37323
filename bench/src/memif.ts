import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { missingPrograms } from './programs.ts';
import { allowedCpus } from './ring-transfer.ts';

// DPDK's shared memory interface, which Debian has in its package dpdk-dev: two dpdk-testpmd, of which one sends frames
// (txonly) and the other one drops them (rxonly). Both copy each frame, into a buffer of the interface and out of it.
// Copy-free transmission ("zero-copy") is left off: it needs huge pages to be reliable.

const PROGRAM = 'dpdk-testpmd';
const PROMPT = 'testpmd> ';
/** Between two looks at the counters of the receiver, in ms. */
const INTERVAL = 500;
/** From the start of the traffic to the first look, in ms. */
const WARM_UP = 200;
/** For a line that testpmd must print, in ms. */
const PATIENCE = 20_000;
const BURST = 64;
/** Packet buffers ("mbufs") of each process: enough for the interface's ring of 1024 and those in hand. */
const BUFFERS = 4096;
/** Of a packet buffer: what DPDK keeps free in front of the packet, in bytes. */
const HEADROOM = 128;
/** Of an interface's buffer, in bytes: the default. */
const SMALLEST_BUFFER = 2048;

/** Why memif cannot be measured here, in one line with the remedy; null if it can. */
export function missingMemif(): string | null {
  const missing = missingPrograms([PROGRAM], 'dpdk-dev') ?? missingPrograms(['stdbuf'], 'coreutils');
  return missing ?? (allowedCpus().length < 2 ? 'It takes two processors.' : null);
}

/** Million frames of `size` bytes per second from one process to the other. Throws Error where one of them fails. */
export async function memifRate(size: number): Promise<number> {
  const directory = mkdtempSync(join(tmpdir(), 'ivshmem-memif-'));
  const [first, second] = allowedCpus();
  const socket = join(directory, 'socket');
  const processes: Testpmd[] = [];
  const start = async (role: 'server' | 'client', cpu: number, more: readonly string[]) => {
    const testpmd = new Testpmd({ role, cpu, socket, size, prefix: directory.slice(-6), more });
    processes.push(testpmd);
    await testpmd.prompt();
    return testpmd;
  };
  try {
    const receiver = await start('server', second!, ['--forward-mode=rxonly']);
    const sender = await start('client', first!, ['--forward-mode=txonly', `--txpkts=${size}`]);
    await receiver.command('start');
    await sender.command('start');
    // The connection is made in the background.
    const deadline = performance.now() + PATIENCE;
    while ((await receiver.received()).frames === 0) {
      if (performance.now() > deadline) throw new Error(`${PROGRAM} passes no frames`);
      await delay(20);
    }
    await delay(WARM_UP);
    const before = await receiver.received();
    await delay(INTERVAL);
    const after = await receiver.received();
    // The counters move while they are read.
    const average = (after.bytes - before.bytes) / (after.frames - before.frames);
    if (Math.abs(average - size) > size / 100)
      throw new Error(`${PROGRAM} sends frames of ${average} bytes instead of ${size}`);
    return (after.frames - before.frames) / (after.time - before.time) / 1000;
  } finally {
    for (const each of processes) await each.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

interface TestpmdOptions {
  readonly role: 'server' | 'client';
  /** The processor that moves packets. */
  readonly cpu: number;
  readonly socket: string;
  /** Of a frame, in bytes. */
  readonly size: number;
  /** Keeps the files of these processes apart from others'. */
  readonly prefix: string;
  readonly more: readonly string[];
}

/** `dpdk-testpmd` with its prompt. */
class Testpmd {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  #output = '';
  #onOutput = () => {};

  constructor({ role, cpu, socket, size, prefix, more }: TestpmdOptions) {
    // One descriptor for each frame, as in our rings.
    const buffer = Math.max(SMALLEST_BUFFER, size);
    const eal = ['--no-huge', '-m', '256', '--no-pci', '--no-shconf', '--no-telemetry'];
    eal.push('--file-prefix', `${prefix}-${role}`, '--lcores', `0@(${allowedCpus().join(',')}),1@${cpu}`);
    eal.push('--vdev', `net_memif0,role=${role},id=0,socket=${socket},socket-abstract=no,bsize=${buffer}`);
    const testpmd = ['--interactive', `--burst=${BURST}`, `--mbuf-size=${buffer + HEADROOM}`];
    testpmd.push(`--total-num-mbufs=${BUFFERS}`, ...more);
    // The prompt is written at once, all else when a line is complete: then both come in their order.
    const command = ['--output=L', PROGRAM, ...eal, '--', ...testpmd];
    this.#child = spawn('stdbuf', command, { stdio: 'pipe' });
    this.#exited = once(this.#child, 'close').catch(() => {});
    this.#child.stdin!.on('error', () => {});
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#output += text;
        this.#onOutput();
      });
    }
  }

  /** Resolves with what was printed since the last prompt when there is another one. */
  prompt(): Promise<string> {
    return new Promise((resolve, reject) => {
      const fail = (why: string) => reject(new Error(`${PROGRAM} ${why}: ${this.#output.trim()}`));
      const timer = setTimeout(() => fail('does not answer'), PATIENCE);
      const look = () => {
        const end = this.#output.indexOf(PROMPT);
        if (end === -1) return;
        clearTimeout(timer);
        resolve(this.#output.slice(0, end));
        this.#output = this.#output.slice(end + PROMPT.length);
        this.#onOutput = () => {};
      };
      this.#onOutput = look;
      look();
      this.#exited.then(() => {
        clearTimeout(timer);
        fail('ended');
      });
    });
  }

  command(line: string): Promise<string> {
    this.#child.stdin!.write(`${line}\n`);
    return this.prompt();
  }

  /** What it has received until now; `time` in ms. */
  async received(): Promise<{ readonly frames: number; readonly bytes: number; readonly time: number }> {
    const time = performance.now();
    const text = await this.command('show port stats 0');
    const match = /RX-packets: (\d+).*RX-bytes: +(\d+)/.exec(text);
    if (match === null) throw new Error(`${PROGRAM} has no counters: ${text}`);
    return { frames: Number(match[1]), bytes: Number(match[2]), time };
  }

  async close(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }
}
