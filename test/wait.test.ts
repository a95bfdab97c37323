import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Program, run } from './support/program.ts';
import { describeNetwork } from './support/requirements.ts';
import { Rig } from './support/rig.ts';

const waits = ({ event, text }: { event?: string; text?: string }) =>
  event === 'log' && /^waiting for the host server: connect [^\n]*ENOENT/.test(text ?? '');

describeNetwork('links with --wait', () => {
  it('wait for the server, and say so in one line', async () => {
    await using rig = new Rig({ net: ['--wait'] });
    for (const end of [0, 1] as const) rig.startPeer(end);
    await Promise.all(rig.peers.map((peer) => peer.line(waits)));
    await rig.startServer();
    await rig.bothUp();
    for (const peer of rig.peers) {
      await peer.line(({ event, text }) => event === 'log' && text === 'connected');
      expect(peer.lines.filter(waits)).toHaveLength(1);
    }
  });

  it('end with SIGTERM while they wait', async () => {
    await using rig = new Rig({ net: ['--wait'] });
    const peer = rig.startPeer(0);
    await peer.line(waits);
    expect(await peer.stop()).toMatchObject({ code: 0, stderr: '' });
  });

  it('end at once for an option that waiting cannot cure', async () => {
    await using rig = new Rig({ net: ['--wait'] });
    expect(await rig.startPeer(0, ['--busy-poll', '9999999']).exited).toMatchObject({ code: 2 });
    await rig.startServer();
    const { code, stderr } = await rig.startPeer(0, ['--mtu', '65521', '--address', '10.0.0.1/33']).exited;
    expect([code, stderr]).toEqual([2, expect.stringMatching(/^ivshmem: [^\n]*10\.0\.0\.1\/33[^\n]*\n$/)]);
  });
});

describe('devices with --wait', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'ivshmem-wait-'));
  });
  afterEach(() => {
    expect(readdirSync(directory)).toEqual([]);
    rmSync(directory, { recursive: true });
  });
  const argv = () => [
    ...['device', '--json', '--wait', '-S', join(directory, 'server')],
    ...['--vfio-user', join(directory, 'a'), '--vfio-user', join(directory, 'b')],
  ];

  it('wait for the server, and say so in one line', async () => {
    const device = new Program(argv());
    expect(await device.line(waits)).toMatchObject({ vfioUser: join(directory, 'a') });
    const server = new Program(['server', '-F', '--json', '-P', '1', '-S', join(directory, 'server')]);
    for (const name of ['a', 'b']) {
      await device.line(({ event, vfioUser }) => event === 'up' && vfioUser === join(directory, name));
    }
    expect(await device.stop()).toMatchObject({ code: 0, stderr: '' });
    await server.stop();
  });

  it('end with SIGTERM while they wait, and at once for a socket in use', async () => {
    const device = new Program(argv());
    await device.line(waits);
    const second = await run(argv());
    expect([second.code, second.stderr]).toEqual([1, expect.stringMatching(/^ivshmem: bind .*EADDRINUSE/)]);
    expect(await device.stop()).toMatchObject({ code: 0, stderr: '' });
    expect(existsSync(join(directory, 'a'))).toBe(false);
  });
});
