import { alternate } from './alternate.ts';
import { missingCompiler } from './c-reference.ts';
import { memifRate, missingMemif } from './memif.ts';
import type { Part, PartOptions } from './part.ts';
import type { Measurement } from './results.ts';
import {
  BURST,
  cRings,
  OURS,
  type RingSubject,
  SECTION_SIZE,
  transferBetweenProcesses,
} from './ring-transfer.ts';

/** Sizes of frames in bytes, and about as many of them as ours passes in half a second. */
const FRAMES: readonly (readonly [size: number, frames: number])[] = [
  [64, 10_000_000],
  [256, 10_000_000],
  [1514, 5_000_000],
  [9014, 1_500_000],
  [16384, 1_000_000],
];

interface Subject {
  readonly name: string;
  /** Million frames per second. */
  measure(size: number, frames: number): Promise<number>;
}

const ofProgram = (subject: RingSubject): Subject => ({
  name: subject.name,
  measure: (frameSize, frames) => transferBetweenProcesses(subject, { frameSize, frames }),
});

/** Those that this machine has, ours first. Says of each that it lacks why. */
function subjects(): Subject[] {
  const found = [ofProgram(OURS)];
  const noCompiler = missingCompiler();
  if (noCompiler === null) found.push(...cRings().map(ofProgram));
  else console.log(`  Without the columns of C. ${noCompiler}`);
  const noMemif = missingMemif();
  if (noMemif === null) found.push({ name: 'DPDK memif', measure: memifRate });
  else console.log(`  Without the column of DPDK memif. ${noMemif}`);
  return found;
}

async function run({ rounds, signal }: PartOptions): Promise<Measurement[]> {
  const all = subjects();
  const measurements: Measurement[] = [];
  for (const [size, frames] of FRAMES) {
    const found = await alternate(all, rounds, async (subject) => {
      signal.throwIfAborted();
      return [{ what: `${size}-byte frames`, unit: 'million/s', value: await subject.measure(size, frames) }];
    });
    measurements.push(...found);
  }
  return measurements;
}

/**
 * Rings alone, between two processes that spin: the producer copies each frame in, the consumer checks its descriptor
 * and reads its first word.
 */
export const rings: Part = {
  name: 'rings',
  title: 'Rings alone, two processes',
  missing: () => null,
  settings: { sectionSize: SECTION_SIZE, burst: BURST, frames: FRAMES.map(([size]) => size) },
  run,
};
