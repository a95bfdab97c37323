import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, readFileSync } from 'node:fs';
import {
  addAddress,
  deleteInterface,
  getInterface,
  Netns,
  openTap,
  setInterface,
  waitForInterface,
} from '@ivshmem/linux/network';
import { ping } from '@ivshmem/traffic';
import { expect, it } from 'vitest';
import { COMMAND, type Line, Program } from './support/program.ts';
import { describeNetwork, describeWhere } from './support/requirements.ts';
import { isCarrierOn, Rig, TAP } from './support/rig.ts';
import { asNobody, missingUserNamespaces, NOBODY } from './support/unprivileged.ts';

const isUp = ({ event }: Line) => event === 'up';

async function expectPing(netns: Netns, to = '10.64.0.2'): Promise<void> {
  expect((await ping({ netns: netns.path, to, count: 10, timeoutMs: 10_000 })).lost).toBe(0);
}

describeNetwork('the interface of `ivshmem net`', () => {
  it('is the one of the descriptor after a rename, a move and a restart of the server', async () => {
    await using rig = await Rig.up({ mtu: 1500 });
    using other = Netns.create();
    rig.inside(0, () => {
      setInterface(TAP, { netns: other.fd, name: 'lan7' });
      // Another interface gets the name: it must stay as it is.
      openTap(TAP, { persist: true }).close();
      setInterface(TAP, { mtu: 1280 });
    });
    other.run(() => {
      setInterface('lan7', { up: true });
      addAddress('lan7', '10.64.0.1/24');
    });
    await rig.peers[0]!.line(({ event, tap }) => event === 'up' && tap === 'lan7');
    const marks = rig.marks;
    await rig.server.stop();
    await rig.startServer();
    await rig.bothUp(marks);
    await expectPing(other);
    expect(rig.inside(0, () => getInterface(TAP))).toMatchObject({ mtu: 1280, up: false });
    rig.inside(0, () => deleteInterface(TAP));
  });

  it('may be there, with all that the options say, as often as wanted', async () => {
    await using rig = new Rig({ mtu: 1400 });
    rig.inside(0, () => openTap(TAP, { persist: true }).close());
    await rig.startServer();
    const before = rig.inside(0, () => getInterface(TAP)!.mac);
    for (let i = 0; i < 2; i++) {
      await rig.startPeer(0, ['--address', '10.64.0.1/24']).line(isUp);
      expect(rig.inside(0, () => getInterface(TAP))).toMatchObject({ mtu: 1400, up: true, mac: before });
      expect(await rig.stopPeer(0)).toBeDefined();
    }
    rig.inside(0, () => deleteInterface(TAP));
  });

  it('can be an open descriptor, with headers or without', async () => {
    await using rig = new Rig({ mtu: 1400 });
    await rig.startServer();
    rig.startPeer(1);
    for (const vnetHeader of [true, false]) {
      using tap = rig.inside(0, () => openTap('given', { vnetHeader }));
      const argv = ['net', '--json', '--until-eof', '--socket', rig.socket, '--tap-fd', '3'];
      const taken = new Program([...argv, '--mtu', '1400', '-a', '10.64.0.1/24'], {
        stdio: ['pipe', 'pipe', 'pipe', tap.fd],
      });
      expect(await taken.line(isUp)).toMatchObject({ tap: 'given' });
      const { offloads } = await taken.line(isCarrierOn);
      expect(offloads.length > 0).toBe(vnetHeader);
      await expectPing(rig.namespaces[0]);
      expect(await taken.stop()).toMatchObject({ code: 0, stderr: '' });
      // It stays as long as its owner holds it.
      expect(rig.inside(0, () => getInterface('given'))).toMatchObject({ up: true, carrier: false });
    }
  });

  it('is refused in one line if its descriptor has packet information', async () => {
    await using rig = new Rig();
    await rig.startServer();
    // IFF_TAP without IFF_NO_PI, as descriptor 3.
    const open = `$^F = 255; open F, '+<', '/dev/net/tun'; $r = pack 'a16Sx22', 'given', 2;
      ioctl F, 0x400454ca, $r or die $!;
      exec @ARGV, fileno F`;
    const argv = ['-e', open, process.execPath, COMMAND, 'net', '--socket', rig.socket, '--tap-fd'];
    const { status, stderr } = spawnSync('nsenter', [`--net=${rig.namespaces[0].path}`, 'perl', ...argv], {
      encoding: 'utf8',
      timeout: 30_000,
    });
    expect([status, stderr]).toEqual([
      1,
      'ivshmem: interface given: has packet information before each frame: open it with IFF_NO_PI\n',
    ]);
  });

  it.each([
    ['no descriptor', '999', /^ivshmem: TUNGETIFF fd 999: EBADF: no such descriptor: [^\n]*\n$/],
    ['no TAP', '0', /^ivshmem: TUNGETIFF fd 0: \w+: is no TAP: [^\n]*\n$/],
  ])('is refused in one line if its descriptor is %s', async (_name, fd, message) => {
    await using rig = new Rig();
    await rig.startServer();
    const net = new Program(['net', '--socket', rig.socket, '--tap-fd', fd]);
    expect(await net.exited).toMatchObject({ code: 1, stderr: expect.stringMatching(message) });
  });
});

describeNetwork('`ivshmem net` with CAP_NET_ADMIN alone', () => {
  it('creates an interface, and keeps using it in a namespace that it may not enter', async () => {
    await using rig = new Rig({ mtu: 1400 });
    await rig.startServer();
    rig.startPeer(1);
    using other = Netns.create();
    // Root's own files are readable without CAP_DAC_OVERRIDE.
    const drop = ['setpriv', '--bounding-set=-all,+net_admin', '--inh-caps=-all', '--no-new-privs', '--'];
    const argv = [
      'net',
      '--json',
      '--until-eof',
      '--socket',
      rig.socket,
      '--mtu',
      '1400',
      '-a',
      '10.64.0.1/24',
    ];
    const net = new Program(argv, {}, [
      'nsenter',
      `--net=${rig.namespaces[0].path}`,
      ...drop,
      process.execPath,
      COMMAND,
    ]);
    await net.line(isCarrierOn);
    await expectPing(rig.namespaces[0]);
    rig.inside(0, () => setInterface(TAP, { netns: other.fd }));
    await net.line(({ event, text }) => event === 'log' && /may not enter/.test(text));
    other.run(() => {
      setInterface(TAP, { up: true });
      addAddress(TAP, '10.64.0.1/24');
      waitForInterface(TAP, (found) => found?.operState === 'up', 20_000);
    });
    await expectPing(other);
    other.run(() => deleteInterface(TAP));
    expect(await net.exited).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('it has been deleted'),
    });
  });
});

describeWhere(missingUserNamespaces(), '`ivshmem net` without privileges', () => {
  it('uses a TAP that root has made for the user', async () => {
    await using rig = new Rig();
    await rig.startServer();
    chmodSync(rig.directory, 0o755);
    chmodSync(rig.socket, 0o666);
    rig.inside(0, () => {
      openTap(TAP, { persist: true, owner: NOBODY }).close();
      setInterface(TAP, { mtu: 1400, up: true });
      addAddress(TAP, '10.64.0.1/24');
      addAddress(TAP, 'fd64::1/64');
    });
    const argv = ['net', '--json', '--until-eof', '--socket', rig.socket];
    const inside = ['nsenter', `--net=${rig.namespaces[0].path}`];
    const user = new Program(
      [...argv, '-a', '10.64.0.1/24', '-a', 'fd64::1/64', '--mac', '02:00:00:00:00:aa'],
      {},
      [...inside, ...asNobody(true, process.execPath, COMMAND)],
    );
    rig.startPeer(1);
    await user.line(isCarrierOn);
    // Which it may not change, and so keeps; the other end follows.
    await user.line(({ text }) => text === 'MTU 1400: set on the interface');
    await rig.peers[1]!.line(({ text }) => text === 'MTU 1400: set at the peer');
    expect(rig.inside(1, () => getInterface(TAP)!.mtu)).toBe(1400);
    await expectPing(rig.namespaces[0]);
    // It hears of what root does, too.
    const seen = rig.peers[1]!.lines.length;
    rig.inside(0, () => setInterface(TAP, { up: false }));
    await rig.peers[1]!.line(({ event, carrier }) => event === 'state' && !carrier, seen);
    expect(rig.inside(0, () => getInterface(TAP)!.mac)).toBe('02:00:00:00:00:aa');
    expect(await user.stop()).toMatchObject({ code: 0, stderr: '' });
    rig.inside(0, () => deleteInterface(TAP));
  });

  it('has an interface in the namespace of a rootless container, until that ends', async () => {
    await using rig = new Rig({ mtu: 1400 });
    await rig.startServer();
    chmodSync(rig.directory, 0o755);
    chmodSync(rig.socket, 0o666);
    const container = await startContainer();
    try {
      const pid = container.child.pid!;
      const entering = ['nsenter', '-t', String(pid), '-U', '--preserve-credentials'];
      const argv = ['--tap', TAP, '--netns', `/proc/${pid}/ns/net`, '--mtu', '1400', '-a', '10.64.0.1/24'];
      const net = new Program(['net', '--json', '--socket', rig.socket, ...argv], {}, [
        ...asNobody(true, ...entering, process.execPath, COMMAND),
      ]);
      rig.startPeer(1);
      await net.line(isCarrierOn);
      {
        using netns = Netns.open(`/proc/${pid}/ns/net`);
        netns.run(() => waitForInterface(TAP, (found) => found?.operState === 'up'));
        await expectPing(netns);
      }
      await container.end();
      expect(await net.exited).toMatchObject({
        code: 1,
        stderr: `ivshmem: network namespace /proc/${pid}/ns/net: it has been deleted, or has another name now\n`,
      });
    } finally {
      await container.end();
    }
  });
});

/** A process of an unprivileged user in a user and a network namespace of its own. */
async function startContainer(): Promise<{ child: ChildProcess; end(): Promise<void> }> {
  const [file, ...argv] = asNobody(
    true,
    'unshare',
    '--user',
    '--map-root-user',
    '--net',
    'sh',
    '-c',
    'echo; cat',
  );
  const child = spawn(file!, argv, { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  await once(child.stdout!, 'data');
  expect(readFileSync(`/proc/${child.pid}/uid_map`, 'utf8')).toContain(String(NOBODY));
  return {
    child,
    async end() {
      child.stdin!.end();
      await ended;
    },
  };
}
