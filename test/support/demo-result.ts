import { expect } from 'vitest';

/** The figures of a demo that succeeded, on any machine: times in ms and µs, rates in Gbit/s. */
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
  expect(result.linkUpMs).toBeLessThan(30_000);
  expect(result.crash.noticedMs).toBeGreaterThanOrEqual(0);
  expect(result.crash.downMs).toBeGreaterThan(result.crash.noticedMs);
  expect(result.crash.downMs).toBeLessThan(30_000);
}
