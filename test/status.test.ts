import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setInterface } from '@ivshmem/linux/network';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { type Exit, Program, run } from './support/program.ts';
import { describeNetwork } from './support/requirements.ts';
import { Rig } from './support/rig.ts';

describeNetwork('ivshmem status', () => {
  let runtime: string;

  beforeEach(() => {
    runtime = mkdtempSync(join(tmpdir(), 'ivshmem-status-'));
    // Inherited by all processes of a test.
    vi.stubEnv('IVSHMEM_RUNTIME_DIR', runtime);
  });

  afterEach(() => {
    vi.unstubAllEnvs();
    const left = readdirSync(runtime);
    rmSync(runtime, { recursive: true });
    expect(left).toEqual([]);
  });

  const outcome = ({ code, stdout, stderr }: Exit) => [code, stdout, stderr];

  it('shows nothing where nothing runs', async () => {
    expect(outcome(await run(['status']))).toEqual([0, 'no links\n', '']);
    expect(outcome(await run(['status', 'blue']))).toEqual([1, 'no links\nblue: no such link\n', '']);
  });

  it('shows a link that is up, and the end that goes down', async () => {
    await using rig = await Rig.up();
    const { code, stdout } = await run(['status']);
    const lines = stdout.split('\n');
    expect(lines[0]).toMatch(/^LINK +PART +PROCESS +STATE +SINCE +MTU +OFFLOADS +FAULTS$/);
    const rows = lines.slice(1, 4).sort();
    const since = '\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d';
    const end = `ivn0 +net-\\d+ +up: RUN, peer RUN +${since} +16384 +[a-z0-9,]+ +-`;
    expect(stdout).toMatch(new RegExp(`^${rig.socket} `, 'm'));
    expect(rows.filter((row) => new RegExp(`${end}$`).test(row))).toHaveLength(2);
    expect(stdout).toMatch(
      new RegExp(`server +server-${rig.server.pid} +2 of 2 peers +${since} +- +- +-$`, 'm'),
    );
    expect(lines.slice(4)).toEqual(['']);
    expect(code).toBe(0);

    const json = JSON.parse((await run(['status', '--json', rig.socket])).stdout);
    expect(json).toMatchObject({
      ok: true,
      problems: [],
      hidden: 0,
      links: [{ name: rig.socket, up: true }],
    });
    const { parts } = json.links[0];
    const second = parts.find(
      ({ process }: { process: { pid: number } }) => process.pid === rig.peers[1]!.pid,
    );
    expect(second).toMatchObject({
      kind: 'interface',
      tap: 'ivn0',
      netns: rig.namespaces[1].path,
      mtu: 16384,
      carrier: true,
      process: { command: 'net', uid: process.getuid!() },
      stats: { resets: expect.any(Number) },
    });

    const marks = rig.marks;
    rig.inside(1, () => setInterface('ivn0', { up: false }));
    await rig.peers[0]!.line(({ event, carrier }) => event === 'state' && !carrier, marks[0]);
    const down = await run(['status', 'ivn0']);
    expect(down.code).toBe(1);
    expect(down.stdout).toMatch(/ivn0 +net-\d+ +down: /);
  });

  it('shows a process that waits, one that does not answer, and forgets one that was killed', async () => {
    await using rig = new Rig();
    rig.startPeer(0, ['--wait']);
    const waiting = await vi.waitFor(async () => {
      const found = await run(['status']);
      expect(found.stdout).toContain(`net-${rig.peers[0]!.pid}: still starting`);
      return found;
    }, 30_000);
    expect(waiting.code).toBe(1);
    await rig.startServer();
    await rig.peers[0]!.line(({ event }) => event === 'up');
    rig.server.child.kill('SIGSTOP');
    const stopped = await run(['status']);
    rig.server.child.kill('SIGCONT');
    expect(stopped.code).toBe(1);
    expect(stopped.stdout).toMatch(new RegExp(`^server-${rig.server.pid}: .*no reply within 5 s$`, 'm'));
    await rig.peers[0]!.stop('SIGKILL');
    expect(readdirSync(runtime)).toContain(`net-${rig.peers[0]!.pid}.ctl`);
    expect((await run(['status'])).stdout).not.toContain('net-');
    expect(readdirSync(runtime)).not.toContain(`net-${rig.peers[0]!.pid}.ctl`);
  });

  it('names a configured link, and why one could not be started', async () => {
    const config = join(runtime, 'links.json');
    const directory = mkdtempSync(join(tmpdir(), 'ivshmem-status-'));
    mkdirSync(join(directory, 'run'));
    const links = [
      { name: 'blue', socket: join(directory, 'run/blue') },
      { name: 'red', socket: join(directory, 'missing/red') },
    ];
    writeFileSync(config, JSON.stringify({ links }));
    const server = new Program(['server', '-F', '--json', '--config', config]);
    try {
      await server.line(({ type }) => type === 'link-failed');
      const { code, stdout } = await vi.waitFor(async () => {
        const found = await run(['status']);
        expect(found.stdout).toContain('blue');
        return found;
      }, 30_000);
      expect(code).toBe(1);
      expect(stdout).toMatch(/^blue +server +server-\d+ +0 of 2 peers/m);
      expect(stdout).toMatch(/^red +red +server-\d+ +failed: bind \S+\/missing\/red: ENOENT/m);
      expect((await run(['status', 'blue'])).code).toBe(0);
    } finally {
      await server.stop();
      rmSync(config);
      rmSync(directory, { recursive: true });
    }
  });
});
