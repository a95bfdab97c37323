import { percentile, ping, udpTransfer } from '@ivshmem/traffic';
import { expect, it } from 'vitest';
import { NumberedTraffic } from './support/numbered-traffic.ts';
import { holdings } from './support/processes.ts';
import { describeNetwork } from './support/requirements.ts';
import { type End, isCarrierOn, Rig } from './support/rig.ts';

const KILLS = 50;
/** From the moment a peer is back on the server until both ends see the carrier, in ms. */
const UP_AGAIN = 2000;
/** What V8's heap may gain, in MiB, that is no leak. */
const HEAP_NOISE = 40;

/** Both ends answer the other's echo requests. */
async function expectPing(rig: Rig, count = 20): Promise<void> {
  for (const end of [0, 1] as const) {
    const to = `10.64.0.${2 - end}`;
    const result = await ping({ netns: rig.namespaces[end].path, to, count, timeoutMs: 5000 });
    expect(result).toMatchObject({ sent: count, lost: 0 });
  }
}

/**
 * Starts an end again. When both have seen the carrier come back, resolves with how long that took, in ms: since the
 * process was started, which is up to Node and the machine, and since the peer was back on the server.
 */
async function restart(rig: Rig, end: End): Promise<{ started: number; back: number }> {
  const marks = rig.marks;
  marks[end] = 0;
  const started = Date.now();
  const up = rig.startPeer(end).line(({ event }) => event === 'up');
  const carriers = await rig.bothUp(marks);
  const both = Math.max(...carriers.map(({ time }) => time));
  return { started: both - started, back: both - (await up).time };
}

describeNetwork('a peer that is killed', () => {
  it(`${KILLS} times under traffic comes back, and the other one neither errs nor grows`, async () => {
    await using rig = await Rig.up({ silent: true, mtu: 1500 });
    using traffic = new NumberedTraffic(rig);
    traffic.attach(0);
    traffic.attach(1);
    await traffic.flows();
    const survivor = rig.peers[0]!.pid;
    const durations: Awaited<ReturnType<typeof restart>>[] = [];
    let before = holdings(survivor);
    for (let i = 0; i < KILLS; i++) {
      await rig.peers[1]!.stop('SIGKILL');
      durations.push(await restart(rig, 1));
      traffic.attach(1);
      await traffic.flows();
      // By then everything has been allocated that is allocated once.
      if (i === 9) before = holdings(survivor);
    }
    const after = holdings(survivor);
    const summary = (times: number[]) =>
      `${percentile(times, 50)} ms (median), ${Math.max(...times)} ms (worst)`;
    const back = durations.map((duration) => duration.back);
    const started = durations.map((duration) => duration.started);
    console.log(
      `${KILLS} kills: up again ${summary(back)} after the peer was back, ${summary(started)} after its process was started; ${traffic.arrived} frames arrived, resident memory ${before.resident.toFixed(0)} to ${after.resident.toFixed(0)} MiB`,
    );
    expect(Math.max(...back)).toBeLessThan(UP_AGAIN);
    expect(traffic.violations).toEqual([]);
    expect({ ...after, resident: 0 }).toEqual({ ...before, resident: 0 });
    expect(after.resident).toBeLessThan(before.resident + HEAP_NOISE);
    expect(await rig.stopPeer(0)).toMatchObject({ violations: 0, invalidPeerStates: 0, resets: KILLS });
  });

  it('together with the other one leaves nothing in their way', async () => {
    await using rig = await Rig.up();
    for (let i = 0; i < 3; i++) {
      await Promise.all(rig.peers.map((peer) => peer.stop('SIGKILL')));
      rig.startPeer(0);
      rig.startPeer(1);
      await rig.bothUp();
      await expectPing(rig);
    }
  });

  it('may come back with the other ID', async () => {
    await using rig = await Rig.up();
    const idOf = async (end: End) => (await rig.peers[end]!.line(({ event }) => event === 'up')).id;
    const before = [await idOf(0), await idOf(1)];
    await Promise.all(rig.peers.map((peer) => peer.stop('SIGKILL')));
    const order: End[] = before[0] === 0 ? [1, 0] : [0, 1];
    for (const end of order) {
      rig.startPeer(end);
      await idOf(end);
    }
    await rig.bothUp();
    expect([await idOf(0), await idOf(1)]).toEqual(before.toReversed());
    await expectPing(rig);
  });
});

describeNetwork('a peer that is stopped and continued', () => {
  it('finds the link as it was', async () => {
    await using rig = await Rig.up();
    await expectPing(rig);
    rig.peers[1]!.child.kill('SIGSTOP');
    // Enough to fill its ring and all queues before it.
    const [from, to] = rig.namespaces.map(({ path }) => path);
    const run = { from: from!, to: to!, address: '10.64.0.2', size: 1000, count: 20_000 };
    expect(await udpTransfer(run)).toMatchObject({ sent: 20_000, received: 0 });
    rig.peers[1]!.child.kill('SIGCONT');
    await expectPing(rig);
    for (const end of [0, 1] as const) {
      expect(await rig.stopPeer(end)).toMatchObject({ violations: 0, invalidPeerStates: 0 });
    }
  });
});

describeNetwork('a host server', () => {
  /** Starts a server where the one before was, and resolves when both links have moved there. */
  async function restartServer(rig: Rig): Promise<void> {
    const marks = rig.marks;
    await rig.startServer();
    const moved = rig.peers.map((peer, end) => peer.line(({ event }) => event === 'up', marks[end]));
    await Promise.all(moved);
    await rig.bothUp(marks);
  }

  it.each(['SIGKILL', 'SIGTERM'] as const)(
    'that ends with %s is not missed, and its successor is found',
    async (signal) => {
      await using rig = await Rig.up();
      const pids = rig.peers.map(({ pid }) => pid);
      let before = pids.map(holdings);
      for (let i = 0; i < 3; i++) {
        const gone = rig.peers.map((peer) => peer.line(({ event }) => event === 'log', peer.lines.length));
        await rig.server.stop(signal);
        await Promise.all(gone);
        await expectPing(rig, 200);
        const started = performance.now();
        await restartServer(rig);
        expect(performance.now() - started).toBeLessThan(10_000);
        await expectPing(rig);
        // By then all modules have been loaded.
        if (i === 0) before = pids.map(holdings);
      }
      for (const [end, pid] of pids.entries()) {
        expect({ ...holdings(pid), resident: 0 }).toEqual({ ...before[end]!, resident: 0 });
      }
      for (const end of [0, 1] as const) {
        expect(await rig.stopPeer(end)).toMatchObject({ reconnects: 3, violations: 0 });
      }
    },
  );

  it('that was away when a peer was killed brings them together again', async () => {
    await using rig = await Rig.up();
    const gone = rig.peers[0]!.line(({ event }) => event === 'log', rig.peers[0]!.lines.length);
    await rig.server.stop('SIGKILL');
    await rig.peers[1]!.stop('SIGKILL');
    await gone;
    const marks = rig.marks;
    const refused = await rig.startPeer(1).exited;
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/^ivshmem: connect [^\n]*ECONNREFUSED: no host server answers[^\n]*\n$/);
    await rig.startServer();
    rig.startPeer(1);
    await rig.bothUp([marks[0], 0]);
    expect(isCarrierOn(rig.peers[0]!.lines.findLast(({ event }) => event === 'state'))).toBe(true);
    await expectPing(rig);
  });
});
