import { alternate } from './alternate.ts';
import { missingCompiler } from './c-reference.ts';
import { memifRate, missingMemif } from './memif.ts';
import type { Part, PartOptions } from './part.ts';
import type { Recorder } from './recorder.ts';
import {
  BURST,
  cRings,
  missingPinning,
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

/** Those that this machine has, ours first. */
function subjectsHere(recorder: Recorder): Subject[] {
  const found = [ofProgram(OURS)];
  const noCompiler = missingCompiler();
  if (noCompiler !== null) recorder.omit('C', noCompiler);
  else {
    try {
      found.push(...cRings().map(ofProgram));
    } catch (error) {
      recorder.fail('C', error);
    }
  }
  const noMemif = missingMemif();
  if (noMemif === null) found.push({ name: 'DPDK memif', measure: memifRate });
  else recorder.omit('DPDK memif', noMemif);
  const noPinning = missingPinning();
  if (noPinning !== null) recorder.omit('a processor of its own for each process', noPinning);
  return found;
}

async function run(options: PartOptions): Promise<void> {
  const subjects = subjectsHere(options.recorder);
  for (const [size, frames] of FRAMES) {
    const title = `${size}-byte frames`;
    const measure = async (subject: Subject) => [
      { what: title, unit: 'million/s', value: await subject.measure(size, frames) },
    ];
    await alternate({ title, subjects, measure }, options);
  }
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
