import { execFileSync } from 'node:child_process';
import { readFileSync, writeSync } from 'node:fs';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { closeFd, duplicateFd, setNonBlocking } from '../index.ts';
import { createMemfd } from '../memory/index.ts';
import {
  clearEventFd,
  createEventFd,
  drainEventFd,
  EPOLLET,
  EPOLLIN,
  Epoll,
  eventFdId,
  isEventFd,
  prepareSignals,
  releaseSignals,
  signalEventFd,
} from './index.ts';

const root = JSON.stringify(new URL('../../dist/index.js', import.meta.url).href);
const wait = JSON.stringify(new URL('../../dist/wait/index.js', import.meta.url).href);
const LIMIT = 0xfffffffffffffffen;
let fds: number[];
beforeEach(() => {
  fds = [createEventFd(), createEventFd(), createMemfd('not-an-eventfd', 4096)];
});
afterEach(() => {
  for (const fd of fds) closeFd(fd);
});

/** Acts as a hostile holder of an eventfd: its counter is at the limit, and a write blocks. */
function makeBlocking(fd: number): void {
  writeSync(fd, new Uint8Array(new BigUint64Array([LIMIT]).buffer));
  setNonBlocking(fd, false);
}

it('distinguishes an eventfd from other descriptors', () => {
  expect([...fds.map(isEventFd), isEventFd(-1)]).toEqual([true, true, false, false]);
});

it('numbers eventfds by their counter', () => {
  const [a, b, other] = fds as [number, number, number];
  const same = duplicateFd(a);
  const ids = [a, b, same].map(eventFdId);
  expect(ids).toEqual([expect.any(Number), expect.any(Number), ids[0]]);
  expect(ids[0]).not.toBe(ids[1]);
  expect([other, -1].map(eventFdId)).toEqual([undefined, undefined]);
  closeFd(same);
});

it('adds 1 to a counter each time, and wakes an edge-triggered poller each time', () => {
  const [fd] = fds as [number];
  using epoll = new Epoll();
  let woken = 0;
  epoll.add(fd, EPOLLIN | EPOLLET, () => {
    woken++;
  });
  for (let i = 1; i <= 1000; i++) {
    expect(signalEventFd(fd)).toBe(true);
    epoll.wait(0);
    expect(woken).toBe(i);
  }
  expect(drainEventFd(fd)).toBe(1000n);
  expect(clearEventFd(fd)).toBe(false);
});

it('returns false for other or closed descriptors, and still works afterwards', () => {
  expect([signalEventFd(fds[2]!), signalEventFd(-1), signalEventFd(987_654)]).toEqual([false, false, false]);
  expect(signalEventFd(fds[0]!)).toBe(true);
  expect(drainEventFd(fds[0]!)).toBe(1n);
});

it('never blocks: a counter at its limit stays there, and can be drained like any other', () => {
  const [full, other] = fds as [number, number];
  makeBlocking(full);
  for (let i = 0; i < 1000; i++) expect(signalEventFd(full)).toBe(true);
  expect(drainEventFd(full)).toBeGreaterThanOrEqual(LIMIT);
  expect([signalEventFd(full), drainEventFd(full), signalEventFd(other)]).toEqual([true, 1n, true]);
});

it('never blocks while another holder keeps filling, draining and blocking the eventfd', () => {
  // In a separate process, which can be killed if it hangs. One of its threads acts as the other holder.
  const program = `
    import { Worker } from 'node:worker_threads';
    import { createEventFd, signalEventFd } from ${wait};
    const fd = createEventFd();
    const shared = new Int32Array(new SharedArrayBuffer(8));
    const worker = new Worker(\`
      import { writeSync } from 'node:fs';
      import { workerData } from 'node:worker_threads';
      import { setNonBlocking } from ${root};
      import { clearEventFd } from ${wait};
      const { fd, shared } = workerData;
      const limit = new Uint8Array(new BigUint64Array([0xfffffffffffffffen]).buffer);
      while (Atomics.load(shared, 0) === 0) {
        setNonBlocking(fd, true);
        clearEventFd(fd);
        try { writeSync(fd, limit); } catch { }
        setNonBlocking(fd, false);
        Atomics.add(shared, 1, 1);
      }\`, { eval: true, workerData: { fd, shared } });
    while (Atomics.load(shared, 1) === 0) await new Promise((resolve) => setImmediate(resolve));
    let signalled = 0;
    while (Atomics.load(shared, 1) < 20_000) for (let i = 0; i < 100; i++) signalled += signalEventFd(fd);
    Atomics.store(shared, 0, 1);
    process.stdout.write(signalled > 0 ? 'passed' : 'nothing');`;
  const output = execFileSync(process.execPath, ['--input-type=module', '--eval', program], {
    timeout: 60_000,
    killSignal: 'SIGKILL',
    encoding: 'utf8',
  });
  expect(output).toBe('passed');
}, 70_000);

it('releases its resources, and can be prepared again', () => {
  releaseSignals();
  const inUse = () => readFileSync('/proc/self/maps', 'utf8').split('[aio]').length - 1;
  const before = inUse();
  for (let i = 0; i < 3; i++) {
    prepareSignals();
    expect(signalEventFd(fds[0]!)).toBe(true);
    expect(inUse()).toBe(before + 1);
    releaseSignals();
    releaseSignals();
    expect(inUse()).toBe(before);
  }
});
