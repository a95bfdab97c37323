import { Worker } from 'node:worker_threads';
import { closeFd, createMemfd } from '@ivshmem/linux';
import type { RingPeerData } from './ring-peer.ts';
import { type Figure, show, summarise } from './statistics.ts';

const SECTION_SIZE = 0x400000;
const BURST = 64;
const FRAMES: readonly (readonly [size: number, frames: number])[] = [
  [64, 10_000_000],
  [1514, 5_000_000],
  [16384, 1_000_000],
];

/**
 * Rings alone, between two threads that spin: the producer copies a frame into each slot, the consumer checks each
 * descriptor and reads the first word of each frame. Prints millions of frames a second.
 */
export async function benchRings(rounds: number): Promise<Record<string, Figure>> {
  console.log('Rings, two threads, million frames/s: median (minimum to maximum)');
  const results: Record<string, Figure> = {};
  for (const [frameSize, frames] of FRAMES) {
    const figures: number[] = [];
    for (let round = 0; round < rounds; round++)
      figures.push(frames / (await transfer(frameSize, frames)) / 1e6);
    const figure = summarise(figures);
    results[`rings-${frameSize}`] = figure;
    console.log(`  ${String(frameSize).padStart(5)} bytes   ${show(figure)}`);
  }
  return results;
}

/** Returns the seconds that the consumer took. */
async function transfer(frameSize: number, frames: number): Promise<number> {
  const fd = createMemfd('ivshmem-bench', 2 * SECTION_SIZE);
  const control = new SharedArrayBuffer(4);
  const run = (role: RingPeerData['role']) =>
    new Promise<number>((resolve, reject) => {
      const workerData: RingPeerData = {
        role,
        fd,
        sectionSize: SECTION_SIZE,
        frameSize,
        frames,
        burst: BURST,
        control,
      };
      const worker = new Worker(new URL('./ring-peer.js', import.meta.url), { workerData });
      worker.on('message', resolve);
      worker.on('error', reject);
    });
  try {
    const [, seconds] = await Promise.all([run('producer'), run('consumer')]);
    return seconds;
  } finally {
    closeFd(fd);
  }
}
