import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { closeFd } from '@ivshmem/linux';
import { createMemfd } from '@ivshmem/linux/memory';
import { cReference } from './c-reference.ts';
import { missingPrograms } from './programs.ts';

/** Of each output section, in bytes. */
export const SECTION_SIZE = 0x400000;
/** What the programs have in front of the sections, in bytes. */
const START_SIZE = 0x10000;
/** One frame in so many is there to warm up, and not measured. */
const WARM_UP = 1 / 10;

/** An implementation of the rings: a program with the arguments of bench/reference/ring-bench.c. */
export interface RingSubject {
  readonly name: string;
  readonly command: readonly string[];
  /** Frames for each store of an index. */
  readonly burst: number;
}

export interface RingJob {
  /** In bytes, 4 or more. */
  readonly frameSize: number;
  readonly frames: number;
}

/** Frames for each store of an index, but where a program is to do without bursts. */
export const BURST = 64;
// The same file from src (under a test runner) and from dist.
const RING_PEER = fileURLToPath(new URL('../dist/ring-peer.js', import.meta.url));

/** The rings of this project. */
export const OURS: RingSubject = { name: 'ivshmem', command: [process.execPath, RING_PEER], burst: BURST };

/**
 * The C reference: in bursts as ours, and with a store of the index, a full barrier and an event check for each frame, as
 * Linux' driver does for frames that come one by one. Compiles it; throws Error if that fails.
 */
export function cRings(): readonly [batched: RingSubject, perFrame: RingSubject] {
  const command = [cReference('ring-bench')];
  return [
    { name: 'C, batched', command, burst: BURST },
    { name: 'C, per frame', command, burst: 1 },
  ];
}

/** The processors that this process may use. Source: proc_pid_status(5). */
export function allowedCpus(): number[] {
  const status = readFileSync('/proc/self/status', 'latin1');
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)![1]!;
  return list.split(',').flatMap((range) => {
    const [first, last = first] = range.split('-').map(Number);
    return Array.from({ length: last! - first! + 1 }, (_, i) => first! + i);
  });
}

/** Why processes cannot get a processor each here, in one line with the remedy; null if they can. */
export function missingPinning(): string | null {
  return allowedCpus().length < 2 ? 'It takes two processors.' : missingPrograms(['taskset'], 'util-linux');
}

/**
 * Sends frames from one process to another, each on a processor of its own unless {@link missingPinning}, and returns
 * million frames per second. Throws Error if one of them fails.
 */
export async function transferBetweenProcesses(subject: RingSubject, job: RingJob): Promise<number> {
  const cpus = allowedCpus();
  const pinned = missingPinning() === null;
  const pin = (cpu: number | undefined) => (pinned ? ['taskset', '--cpu-list', String(cpu)] : []);
  const [, seconds] = await run(subject, job, [
    [...pin(cpus[0]), ...subject.command, 'producer'],
    [...pin(cpus[1]), ...subject.command, 'consumer'],
  ]);
  return rate(job, seconds!);
}

/**
 * Sends frames from one end to the other by turns in a single process, and returns million frames per second of processor
 * time, which depends little on the load of the machine. Throws Error if it fails.
 */
export async function transferWithinProcess(subject: RingSubject, job: RingJob): Promise<number> {
  const [seconds] = await run(subject, job, [[...subject.command, 'both']]);
  return rate(job, seconds!);
}

function rate({ frames }: RingJob, seconds: number): number {
  return (frames - Math.floor(frames * WARM_UP)) / seconds / 1e6;
}

/** Starts the programs on a memory of their own, and returns the number that each printed. */
async function run(
  { burst }: RingSubject,
  { frameSize, frames }: RingJob,
  commands: readonly (readonly string[])[],
): Promise<number[]> {
  const fd = createMemfd('ivshmem-bench', START_SIZE + 2 * SECTION_SIZE);
  const job = [SECTION_SIZE, frameSize, frames, Math.floor(frames * WARM_UP), burst].map(String);
  const children: ChildProcess[] = [];
  try {
    for (const [program, ...before] of commands)
      children.push(spawn(program!, [...before, ...job], { stdio: ['ignore', 'pipe', 'pipe', fd] }));
    return await Promise.all(children.map(output));
  } finally {
    // Where one has failed, the other one waits for it.
    await Promise.all(children.map(end));
    closeFd(fd);
  }
}

async function output(child: ChildProcess): Promise<number> {
  let stdout = '';
  let stderr = '';
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const [code, signal] = await once(child, 'close');
  if (code === 0) return Number(stdout);
  throw new Error(`${child.spawnargs.join(' ')}: ${stderr.trim() || (signal ?? `exit code ${code}`)}`);
}

async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}
