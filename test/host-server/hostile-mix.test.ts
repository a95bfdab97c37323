import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const script = fileURLToPath(new URL('../../bench/dist/hostile-mix.js', import.meta.url));

it('clients that misbehave in every way at once cost no other peer anything', async () => {
  const { stdout } = await promisify(execFile)(process.execPath, [script, '--seconds', '20', '--json']);
  const result = JSON.parse(stdout);
  expect(result).toMatchObject({ peersLost: 0, reasons: [], doorbellsLost: 0 });
  // The mix was one: each kind has been there, and was dealt with.
  for (const kind of [
    'joins',
    'refusedForDescriptors',
    'goneBeforeTheirTurn',
    'evictedForNotReading',
    'evictedForSending',
    'disconnected',
    'massKills',
    'reloads',
  ]) {
    expect([kind, result[kind]]).toEqual([kind, expect.any(Number)]);
    expect(result[kind], kind).toBeGreaterThan(0);
  }
  expect(result.doorbellsRung).toBeGreaterThan(100);
  expect(result.fdsAfter).toBeLessThanOrEqual(result.fdsBefore + 1);
  // Node keeps some of what garbage collection gives back.
  expect(result.memoryAfterMiB - result.memoryBeforeMiB).toBeLessThan(60);
});
