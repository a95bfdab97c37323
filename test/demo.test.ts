import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { expectSane } from './support/demo-result.ts';
import { run } from './support/program.ts';
import { describeNetwork } from './support/requirements.ts';

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
