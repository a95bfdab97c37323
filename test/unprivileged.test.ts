import { chownSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { expectSane } from './support/demo-result.ts';
import { processesWith, until } from './support/processes.ts';
import { COMMAND, Program } from './support/program.ts';
import { describeWhere } from './support/requirements.ts';
import { asNobody, missingUserNamespaces, NOBODY } from './support/unprivileged.ts';

describeWhere(missingUserNamespaces(), 'ivshmem demo, as a user without privileges', () => {
  let directory: string;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'ivshmem-nobody-'));
    chownSync(directory, NOBODY, NOBODY);
  });

  afterEach(async () => {
    await until(() => processesWith(`TMPDIR=${directory}`).length === 0);
    expect(readdirSync(directory)).toEqual([]);
    rmSync(directory, { recursive: true });
  });

  const start = (device: boolean, ...argv: string[]) =>
    new Program(['demo', ...argv], { env: { ...process.env, TMPDIR: directory } }, [
      ...asNobody(device, process.execPath, COMMAND),
    ]);

  it('runs in a user namespace of its own, and leaves nothing behind', async () => {
    const { code, stdout, stderr } = await start(true, '--json').exited;
    expect([stderr, code]).toEqual(['', 0]);
    expectSane(stdout);
  });

  it.each([
    ['SIGTERM', 1],
    ['SIGKILL', null],
  ] as const)('leaves nothing after %s', async (signal, expected) => {
    const demo = start(true);
    await demo.line((line) => String(line).startsWith('Ping'));
    const { code, stdout, stderr } = await demo.stop(signal);
    expect([stderr, code]).toEqual(['', expected]);
    expect(stdout).toContain('Stopped. Nothing is left behind.');
  });

  it('names the limit that leaves no user namespace, in one line', async () => {
    // In a user namespace of its own, a user can lower the limits, and then give up the privileges for that.
    const script =
      'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --ambient-caps=-all --inh-caps=-all "$@"';
    const inside = ['unshare', '--user', `--map-user=${NOBODY}`, '--keep-caps', 'sh', '-c', script, 'sh'];
    const demo = new Program(['demo'], {}, [...asNobody(true, ...inside, process.execPath, COMMAND)]);
    const { code, stdout, stderr } = await demo.exited;
    expect([stdout, code]).toEqual(['', 1]);
    expect(stderr).toMatch(
      /^ivshmem: The demo can't run here\. This process lacks [^\n]* \(user\.max_user_namespaces is 0, [^\n]*sysctl[^\n]*\n$/,
    );
  });

  it('says in one line what it lacks', async () => {
    const { code, stdout, stderr } = await start(false).exited;
    expect([stdout, code]).toEqual(['', 1]);
    expect(stderr).toMatch(
      /^ivshmem: The demo can't run here. \/dev\/net\/tun can't be opened \(ENOENT\): [^\n]*\n$/,
    );
  });
});
