import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { run } from './support/program.ts';
import { describeNetwork } from './support/requirements.ts';

/** The figures of a demo that went well, on whatever machine: times in ms and µs, rates in Gbit/s. */
export function expectSane(stdout: string): void {
  const result = JSON.parse(stdout);
  expect(result.ping).toMatchObject({ sent: 1000, lost: 0 });
  expect(result.ping.p50).toBeGreaterThan(1);
  expect(result.ping.p99).toBeGreaterThanOrEqual(result.ping.p50);
  expect(result.tcp.map(({ mtu }: { mtu: number }) => mtu)).toEqual([1500, 65521]);
  for (const { aToB, bToA } of result.tcp) {
    for (const rate of [aToB, bToA]) expect(rate).toBeGreaterThan(0.1);
  }
  expect(result.linkUpMs).toBeGreaterThan(0);
  expect(result.linkUpMs).toBeLessThan(5000);
  expect(result.crash.noticedMs).toBeGreaterThanOrEqual(0);
  expect(result.crash.downMs).toBeGreaterThan(result.crash.noticedMs);
  expect(result.crash.downMs).toBeLessThan(5000);
}

describeNetwork('ivshmem demo', () => {
  it('measures a link, survives a crash, and leaves nothing behind', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'ivshmem-demo-test-'));
    const { code, stdout, stderr } = await run(['demo', '--json'], {
      env: { ...process.env, TMPDIR: directory },
    });
    expect([stderr, code]).toEqual(['', 0]);
    expectSane(stdout);
    expect(readdirSync(directory)).toEqual([]);
    rmSync(directory, { recursive: true });
  });
});
