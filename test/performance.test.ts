import { expect, it } from 'vitest';
import { missingCompiler } from '../bench/src/c-reference.ts';
import { cRings, OURS, type RingSubject, transferWithinProcess } from '../bench/src/ring-transfer.ts';
import { ratios } from '../bench/src/statistics.ts';
import { describeWhere } from './support/requirements.ts';

const ROUNDS = 5;
/**
 * Size of a frame in bytes, how many, and how many times the speed of the C reference in bursts ours must have: less than
 * half of what is usual (0.28 and 0.67), since machines differ; what makes it fall below that is a mistake in the code.
 */
const JOBS = [
  [64, 2_000_000, 0.12],
  [1514, 1_000_000, 0.3],
] as const;

describeWhere(missingCompiler(), 'the rings, beside C in the same run', () => {
  it.each(JOBS)('pass frames of %i bytes', async (frameSize, frames, least) => {
    const [batched] = cRings();
    const job = { frameSize, frames };
    // Within one process, by its own CPU time: what else the machine does matters little.
    const measure = async (subject: RingSubject, into: number[]) => {
      into.push(await transferWithinProcess(subject, job));
    };
    const ours: number[] = [];
    const inC: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      await measure(OURS, ours);
      await measure(batched, inC);
    }
    expect(ratios(ours, inC).median).toBeGreaterThan(least);
  });
});
