import { closeFd } from '@ivshmem/linux';
import { openFilesLimit, setOpenFilesLimit } from '@ivshmem/linux/process';
import { UnixSocket } from '@ivshmem/linux/socket';
import { describe, expect, it } from 'vitest';
import { Client } from './client.ts';
import { DescriptorBudget } from './descriptor-budget.ts';

const credentials = { pid: 1, uid: 0, gid: 0 };

describe.runIf(process.geteuid?.() === 0)('a client, with too many descriptors in flight', () => {
  it('is not evicted because others do not read', () => {
    const budget = DescriptorBudget.ofProcess();
    const pairs = [UnixSocket.pair(), UnixSocket.pair()];
    const limits = { vectors: 1, capacity: 1000 };
    const [hoarder, innocent] = pairs.map(
      ([socket], id) => new Client(id, socket, credentials, limits, budget),
    );
    const { bytes, event } = hoarder!.announcement[0]!;
    // ETOOMANYREFS does not apply to root.
    for (let i = 0; i < 150; i++) hoarder!.push(bytes, event);
    hoarder!.flush();
    expect(hoarder!.stalledSince).toBeNull();
    const { soft } = openFilesLimit();
    setOpenFilesLimit(100);
    process.seteuid!(65534);
    try {
      for (const client of [hoarder!, innocent!]) {
        client.push(bytes, event);
        client.flush();
      }
    } finally {
      process.seteuid!(0);
      setOpenFilesLimit(soft);
    }
    expect([hoarder!.retry, innocent!.retry]).toEqual([true, true]);
    const later = performance.now() + 60_000;
    expect([hoarder!.isStalled(later, 30_000), innocent!.isStalled(later, 30_000)]).toEqual([true, false]);
    hoarder!.close();
    // Closing the other end releases the descriptors in flight.
    pairs[0]![1].close();
    innocent!.flush();
    expect([innocent!.waiting.messages, innocent!.stalledSince]).toEqual([0, null]);
    const fds: number[] = [];
    expect(pairs[1]![1].receive(new Uint8Array(64), fds)).toBe(16);
    for (const fd of fds) closeFd(fd);
    innocent!.close();
    pairs[1]![1].close();
  });
});
