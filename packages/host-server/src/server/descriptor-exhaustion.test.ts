import { closeFd } from '@ivshmem/linux';
import { openFilesLimit, setOpenFilesLimit } from '@ivshmem/linux/process';
import { createEventFd } from '@ivshmem/linux/wait';
import { describe, expect, it } from 'vitest';
import { DescriptorBudget } from './descriptor-budget.ts';
import { occurrence, openFds, useHostServers } from './strict-client.test-support.ts';

describe('a host server out of descriptors', () => {
  const fixture = useHostServers();

  it('rejects new clients with its reserved descriptor, and keeps the connected ones', async () => {
    const server = fixture.start({ vectors: 4, maxPeers: 3 });
    const resident = await fixture.join(4, []);
    const { soft } = openFilesLimit();
    const fillers: number[] = [];
    setOpenFilesLimit(200);
    try {
      expect(() => {
        for (;;) fillers.push(createEventFd());
      }).toThrow('EMFILE');
      for (let i = 0; i < 3; i++) {
        closeFd(fillers.pop()!);
        const refused = occurrence(server, 'refused');
        const client = fixture.connect();
        expect(await refused).toMatchObject({
          cause: 'descriptors',
          credentials: { pid: process.pid },
          reason: expect.stringContaining('RLIMIT_NOFILE is 200'),
        });
        await client.expectEnd();
        client.close();
        fillers.push(createEventFd());
      }
      // Enough for accept(2), too few for the eventfds.
      for (const fd of fillers.splice(0, 3)) closeFd(fd);
      const refused = occurrence(server, 'refused');
      await fixture.connect().expectEnd();
      expect(await refused).toMatchObject({ cause: 'error', reason: expect.stringContaining('EMFILE') });
    } finally {
      for (const fd of fillers) closeFd(fd);
      setOpenFilesLimit(soft);
    }
    expect(server.peers.map(({ id }) => id)).toEqual([0]);
    const next = await fixture.join(4, [0]);
    await resident.expectPeer(next.id, 4);
  });

  it('rejects clients beyond its budget, naming the limit, until others disconnect', async () => {
    const budget = new DescriptorBudget(100, 100 - 64 - 5 - 2 * 5);
    const warnings: string[] = [];
    const server = fixture.start({
      vectors: 4,
      maxPeers: 8,
      budget,
      log: (event) => event.type === 'warning' && warnings.push(event.text),
    });
    expect(warnings).toEqual([
      'descriptors for 2 of 8 peers only: RLIMIT_NOFILE is 100: raise it by LimitNOFILE= of the systemd unit, or by ulimit -n',
    ]);
    await fixture.join(4, []);
    const second = await fixture.join(4, [0]);
    expect(budget.left).toBe(0);
    const refused = occurrence(server, 'refused');
    await fixture.connect().expectEnd();
    expect(await refused).toMatchObject({
      cause: 'descriptors',
      reason: expect.stringMatching(
        /^a peer needs 5 descriptors and 0 are left, RLIMIT_NOFILE is 100: raise/,
      ),
    });
    const gone = occurrence(server, 'peer-gone');
    second.close();
    await gone;
    expect(budget.left).toBe(5);
    expect((await fixture.join(4, [0])).id).toBe(1);
    server.close();
    expect(budget.left).toBe(15);
  });

  it('has back all descriptors of a peer that has left, also if others have yet to be notified', async () => {
    const budget = DescriptorBudget.ofProcess();
    const before = budget.left;
    const server = fixture.start({ vectors: 64, maxPeers: 3, budget });
    const slow = fixture.connect();
    await occurrence(server, 'peer-joined');
    const during = openFds();
    const left = budget.left;
    for (let i = 0; i < 12; i++) {
      const joined = occurrence(server, 'peer-joined');
      const passing = fixture.connect();
      await joined;
      const gone = occurrence(server, 'peer-gone');
      passing.close();
      await gone;
    }
    expect([openFds(), budget.left]).toEqual([during, left]);
    const gone = occurrence(server, 'peer-gone');
    slow.close();
    await gone;
    expect(budget.left).toBe(before - 5);
    server.close();
    expect(budget.left).toBe(before);
  });

  it('does not start without descriptors for itself', () => {
    const budget = new DescriptorBudget(100, 90);
    expect(() => fixture.start({ budget })).toThrow(
      'the server needs 5 descriptors and 0 are left, RLIMIT_NOFILE is 100: raise it',
    );
  });
});
