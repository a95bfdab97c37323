import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { ensureAddress, getInterface } from '@ivshmem/linux/network';
import { percentile } from '@ivshmem/traffic';
import { expect, it } from 'vitest';
import { until } from './support/processes.ts';
import { describeNetwork } from './support/requirements.ts';
import { type End, Rig, TAP } from './support/rig.ts';
import { TcpStream } from './support/tcp-stream.ts';

/** How often a process is killed, in each of two ways. The documented figures are those of 200. */
const KILLS = Number(process.env.IVSHMEM_KILLS ?? 10);
/** Longest time between two kills, in ms. */
const PAUSE = 600;

/** The process that a supervisor runs now; undefined while there is none. */
function supervised(supervisor: number): number | undefined {
  const children = readFileSync(`/proc/${supervisor}/task/${supervisor}/children`, 'latin1');
  return Number(children.split(' ')[0]) || undefined;
}

/** Kills the process of an end, when there is one. */
async function kill(rig: Rig, end: End, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
  await until(() => supervised(rig.peers[end]!.pid) !== undefined);
  process.kill(supervised(rig.peers[end]!.pid)!, signal);
}

const interfaceOf = (rig: Rig, end: End) => rig.inside(end, () => getInterface(TAP));
const addressesOf = (rig: Rig, end: End) =>
  rig.inside(end, () => (networkInterfaces()[TAP] ?? []).map(({ cidr }) => cidr).sort());

const summary = (times: number[]) =>
  `${percentile(times, 50).toFixed(0)} ms (median), ${Math.max(...times).toFixed(0)} ms (longest)`;

describeNetwork('a link under a supervisor', () => {
  it.each([
    ['', []],
    [' with a standby process', ['--standby']],
  ])(
    `is killed ${KILLS} times under TCP%s: no connection is lost, nothing is damaged, the server notices nothing`,
    async (how, supervised) => {
      await using rig = await Rig.up({ supervised });
      await using stream = await TcpStream.open(rig);
      await stream.flows();
      const { index } = interfaceOf(rig, 0)!;
      const serverLines = rig.server.lines.length;
      const gaps: number[] = [];
      for (let i = 0; i < KILLS; i++) {
        const end = (i % 2) as End;
        await delay(Math.random() * PAUSE);
        const marks = rig.marks;
        await kill(rig, end);
        const started = Date.now();
        const carriers = await rig.bothUp(marks);
        gaps.push(Math.max(...carriers.map(({ time }) => time)) - started);
        if (i % 5 === 4) await stream.flows();
      }
      await stream.flows();
      console.log(`${KILLS} kills${how}: without a carrier for ${summary(gaps)}`);
      expect(interfaceOf(rig, 0)!.index).toBe(index);
      expect(rig.server.lines.slice(serverLines)).toEqual([]);
      for (const { received, fault } of await stream.close()) {
        expect(fault).toBeNull();
        expect(received).toBeGreaterThan(500_000);
      }
    },
    60_000 + 5000 * KILLS,
  );

  it('keeps interface, addresses and port over a kill and an orderly restart, and leaves nothing at its end', async () => {
    await using rig = await Rig.up({ supervised: true });
    const { index, mac } = interfaceOf(rig, 0)!;
    // By an administrator.
    rig.inside(0, () => ensureAddress(interfaceOf(rig, 0)!, '10.65.0.1/24'));
    const addresses = addressesOf(rig, 0);
    expect(addresses).toContain('10.65.0.1/24');
    const serverLines = rig.server.lines.length;
    for (const restart of [
      () => kill(rig, 0),
      async () => void rig.peers[0]!.child.kill('SIGUSR1'),
      () => kill(rig, 0, 'SIGSEGV'),
    ]) {
      const marks = rig.marks;
      await restart();
      await rig.bothUp(marks);
      expect(interfaceOf(rig, 0)).toMatchObject({ index, mac });
      expect(addressesOf(rig, 0)).toEqual(addresses);
    }
    expect(rig.server.lines.slice(serverLines)).toEqual([]);
    await rig.peers[0]!.stop();
    expect(interfaceOf(rig, 0)).toBeNull();
    await rig.server.line(({ type }) => type === 'peer-gone', serverLines);
  });

  it('comes back without its server, and finds the next one', async () => {
    await using rig = await Rig.up({ supervised: true });
    const { index } = interfaceOf(rig, 0)!;
    await rig.server.stop('SIGKILL');
    await rig.peers[0]!.line(({ text }) => /the host server is gone/.test(text));
    const marks = rig.marks;
    await kill(rig, 0);
    // On the memory of the server that is gone.
    await rig.bothUp(marks);
    expect(interfaceOf(rig, 0)!.index).toBe(index);
    const later = rig.marks;
    await rig.startServer();
    await rig.bothUp(later);
    expect(interfaceOf(rig, 0)!.index).toBe(index);
  });
});
