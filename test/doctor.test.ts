import { chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { processesWith, until } from './support/processes.ts';
import { COMMAND, type Exit, Program } from './support/program.ts';
import { describeNetwork, describeWhere } from './support/requirements.ts';
import { asNobody, missingUserNamespaces, NOBODY } from './support/unprivileged.ts';

interface Result {
  readonly ok: boolean;
  readonly checks: { name: string; status: string; text: string; remedy?: string }[];
}

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ivshmem-doctor-'));
  chownSync(directory, NOBODY, NOBODY);
});

/** Nothing is left: no file, no process. */
afterEach(async () => {
  await until(() => processesWith(`TMPDIR=${directory}`).length === 0);
  expect(readdirSync(directory)).toEqual([]);
  rmSync(directory, { recursive: true });
});

const environment = () => ({ ...process.env, TMPDIR: directory });

function resultOf({ code, stdout, stderr }: Exit, status: number): Result {
  expect([stderr, code]).toEqual(['', status]);
  const result: Result = JSON.parse(stdout);
  expect(result.ok).toBe(status === 0);
  for (const { status: found, remedy } of result.checks) expect(remedy === undefined).toBe(found === 'ok');
  return result;
}

const check = ({ checks }: Result, name: string) => checks.find((found) => found.name === name);

/** Without /dev/net/tun: a mount namespace with an empty /dev/net. */
const WITHOUT_TUN = [
  'unshare',
  '--mount',
  '--',
  'sh',
  '-c',
  'mount -t tmpfs ivshmem-test /dev/net && exec "$@"',
  'sh',
];

describeNetwork('ivshmem doctor, as root', () => {
  it('tries a link, and prints a line for each check', async () => {
    const doctor = new Program(['doctor'], { env: environment() });
    const { code, stdout, stderr } = await doctor.exited;
    expect([stderr, code]).toEqual(['', 0]);
    for (const line of stdout.trim().split('\n')) {
      expect(line).toMatch(/^((ok|warning) {2,}\S.* {2,}\S.*| {20,}\S.*|Links work here\.|)$/);
    }
    expect(stdout).toMatch(/^ok {2,}rings {2,}100 of 100 frames/m);
    expect(stdout).toMatch(
      /^ok {2,}link {2,}two interfaces were connected in \d+ ms; \d+ of 100 pings answered/m,
    );
  });

  it('fails without /dev/net/tun, and names the remedy', async () => {
    const command = [...WITHOUT_TUN, process.execPath, COMMAND];
    const doctor = new Program(['doctor', '--json'], { env: environment() }, command);
    const result = resultOf(await doctor.exited, 1);
    expect(check(result, 'TUN/TAP')).toMatchObject({
      status: 'failure',
      text: "/dev/net/tun can't be opened (ENOENT)",
      remedy: expect.stringContaining('modprobe tun'),
    });
    expect(check(result, 'rings')).toMatchObject({ status: 'ok' });
    expect(check(result, 'link')).toMatchObject({
      status: 'warning',
      text: expect.stringContaining('not tried'),
    });
  });

  it('only warns without QEMU', async () => {
    const path = join(directory, 'bin');
    mkdirSync(path);
    // All that it calls.
    symlinkSync('/usr/bin/unshare', join(path, 'unshare'));
    symlinkSync('/usr/bin/true', join(path, 'true'));
    const doctor = new Program(['doctor', '--json'], { env: { ...environment(), PATH: path } });
    const result = resultOf(await doctor.exited, 0);
    rmSync(path, { recursive: true });
    expect(check(result, 'QEMU')).toMatchObject({
      status: 'warning',
      text: expect.stringContaining('no qemu-system-… in PATH'),
      remedy: expect.stringContaining('docs/qemu.md'),
    });
    expect(check(result, 'link')).toMatchObject({ status: 'ok' });
  });

  it('leaves nothing after SIGTERM', async () => {
    const doctor = new Program(['doctor'], { env: environment() });
    await doctor.line((line) => String(line).startsWith('ok       rings'));
    expect(await doctor.stop()).toMatchObject({ code: 1, stderr: '' });
  });
});

describeWhere(missingUserNamespaces(), 'ivshmem doctor, as a user without privileges', () => {
  const start = (tun: boolean, ...command: string[]) =>
    new Program(['doctor', '--json'], { env: environment() }, [
      ...asNobody(tun, ...command, process.execPath, COMMAND),
    ]).exited;

  it('tries a link in a user namespace', async () => {
    const result = resultOf(await start(true), 0);
    expect(check(result, 'capabilities')).toMatchObject({
      status: 'warning',
      text: expect.stringContaining('CAP_NET_ADMIN'),
      remedy: expect.stringContaining('ip tuntap add'),
    });
    expect(check(result, 'user namespaces')).toMatchObject({ status: 'ok' });
    expect(check(result, 'link')).toMatchObject({
      status: 'ok',
      text: expect.stringMatching(
        /^in a user namespace, two interfaces were connected in \d+ ms; \d+ of 100/,
      ),
    });
  });

  it('fails without /dev/net/tun', async () => {
    const result = resultOf(await start(false), 1);
    expect(check(result, 'TUN/TAP')).toMatchObject({ status: 'failure' });
    expect(check(result, 'rings')).toMatchObject({ status: 'ok' });
  });

  it('names the limit that leaves no user namespace', async () => {
    // In a user namespace of its own, a user can lower the limits, and then give up the privileges for that.
    const script =
      'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --ambient-caps=-all --inh-caps=-all "$@"';
    const inside = ['unshare', '--user', `--map-user=${NOBODY}`, '--keep-caps', 'sh', '-c', script, 'sh'];
    const result = resultOf(await start(true, ...inside), 0);
    expect(check(result, 'namespaces')).toMatchObject({
      status: 'warning',
      text: 'user.max_user_namespaces is 0',
      remedy: 'sysctl -w user.max_user_namespaces=1024',
    });
    expect(check(result, 'user namespaces')).toMatchObject({ status: 'warning' });
    expect(check(result, 'rings')).toMatchObject({ status: 'ok' });
    expect(check(result, 'link')).toMatchObject({
      status: 'warning',
      text: expect.stringContaining('not tried'),
    });
  });
});
