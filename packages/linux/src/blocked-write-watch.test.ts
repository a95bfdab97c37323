import { writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import {
  BlockedWriteWatch,
  closeFd,
  createEventFd,
  createMemfd,
  drainEventFd,
  isEventFd,
  setNonBlocking,
} from './index.ts';

it('knows an eventfd from other descriptors', () => {
  const fds = [createEventFd(), createMemfd('not-an-eventfd', 4096)];
  expect([...fds.map(isEventFd), isEventFd(-1)]).toEqual([true, false, false]);
  for (const fd of fds) closeFd(fd);
});

it('lets a thread go on whose write to an eventfd is blocked, and leaves other writes alone', async () => {
  const [blocked, free] = [createEventFd(), createEventFd()];
  writeSync(blocked, new Uint8Array(new BigUint64Array([0xfffffffffffffffen]).buffer));
  setNonBlocking(blocked, false);
  const watch = new BlockedWriteWatch();
  const linux = new URL('../dist/index.js', import.meta.url).href;
  const worker = new Worker(
    `const { workerData: { cells, free, blocked } } = require('node:worker_threads');
    import('${linux}').then(({ reportEventFdWrites, signalEventFd }) => {
      reportEventFdWrites(cells);
      signalEventFd(free);
      signalEventFd(blocked);
    });`,
    { eval: true, workerData: { cells: watch.cells, free, blocked } },
  );
  let ended = false;
  worker.once('exit', () => {
    ended = true;
  });
  let helped = 0;
  while (!ended) {
    if (watch.check()) helped++;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  expect(helped).toBeGreaterThanOrEqual(1);
  expect([drainEventFd(free), drainEventFd(blocked)]).toEqual([1n, 1n]);
  for (const fd of [blocked, free]) closeFd(fd);
});
