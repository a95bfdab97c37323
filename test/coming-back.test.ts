import { chmodSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseSize } from '@ivshmem/host-server/service';
import { Netns } from '@ivshmem/linux/network';
import { ping } from '@ivshmem/traffic';
import { handshakeStep, INITIAL_HANDSHAKE, NO_EVENTS, State } from '@ivshmem/transport/protocol';
import { describe, expect, it } from 'vitest';
import { Region } from '../packages/device/src/vfio-user/messages.ts';
import { VmmClient } from '../packages/device/src/vfio-user/vmm-client.test-support.ts';
import { type Line, Program, run } from './support/program.ts';
import { describeNetwork } from './support/requirements.ts';
import { isCarrierOn, Rig } from './support/rig.ts';

const ID = 0x00;
const STATE = 0x10;
const NOBODY = 65534;

const isState = ({ event }: Line) => event === 'state';
const isUp = ({ event }: Line) => event === 'up';
const logs = (pattern: RegExp) => (line: Line) => line.event === 'log' && pattern.test(line.text);
const stays = logs(/^a host server is there, the peer is not: the link stays/);

/** A server in place of the rig's, which it ends. */
async function restart(rig: Rig, argv: readonly string[] = [], uid = 0): Promise<void> {
  await rig.server?.stop('SIGKILL');
  // Another user could neither remove it nor find out that no server answers there.
  rmSync(rig.socket, { force: true });
  const options = ['-P', '1', '-V', '2', '-o', '1M', '-l', '4M', ...argv];
  rig.server = new Program(['server', '-F', '--json', '-S', rig.socket, ...options], { uid });
  await rig.server.line(({ type }) => type === 'listening');
}

/** Goes through the handshake as a guest's driver does, until both sides run. */
async function drive(vmm: VmmClient): Promise<void> {
  const peer = 1 - vmm.readRegister(ID);
  let state = INITIAL_HANDSHAKE;
  vmm.writeRegister(STATE, State.RESET);
  while (!state.carrier) {
    const step = handshakeStep(state, vmm.read(Region.BAR2, peer * 4, 4).readUInt32LE(), NO_EVENTS);
    for (const action of step.actions) if (action.type === 'publish') vmm.writeRegister(STATE, action.state);
    if (step.next === state) await delay(5);
    state = step.next;
  }
}

/** A VM whose guest has gone through the handshake, and would then move frames. */
async function attach(path: string): Promise<VmmClient & Disposable> {
  const vmm = new VmmClient(path);
  vmm.start();
  await drive(vmm);
  return Object.assign(vmm, { [Symbol.dispose]: () => vmm.close() });
}

/** A link at end 0, and a device for a VM, each a process. */
async function linkAndDevice(rig: Rig): Promise<{ link: Program; device: Program; path: string }> {
  const path = join(rig.directory, 'vm');
  const link = rig.startPeer(0);
  await link.line(isUp);
  const device = new Program(['device', '--json', '-S', rig.socket, '--vfio-user', path]);
  rig.peers[1] = device;
  await device.line(({ state }) => state === 'waiting');
  return { link, device, path };
}

async function expectPing(rig: Rig): Promise<void> {
  const result = await ping({ netns: rig.namespaces[0].path, to: '10.64.0.2', count: 50, timeoutMs: 5000 });
  expect(result).toMatchObject({ sent: 50, lost: 0 });
}

describeNetwork('after a restart of the server', () => {
  it('two links connect through the new one, with any sizes, after any number of restarts', async () => {
    await using rig = await Rig.up();
    const pids = rig.peers.map(({ pid }) => pid);
    for (const size of ['64K', '256K']) {
      // The second one follows while the links are on their way to the first.
      await restart(rig, ['-o', '128K']);
      const marks = rig.marks;
      await restart(rig, ['-o', size]);
      const moved = (line: Line) => isUp(line) && line.outputSectionSize === parseSize(size);
      await Promise.all(rig.peers.map((peer, end) => peer.line(moved, marks[end])));
      await rig.bothUp(marks);
      await expectPing(rig);
    }
    expect(rig.peers.map(({ pid }) => pid)).toEqual(pids);
  });

  it('a link stays with a VM until that is restarted', async () => {
    await using rig = new Rig({ net: ['--mtu', '1500'] });
    await restart(rig);
    const { link, device, path } = await linkAndDevice(rig);
    using vmm = await attach(path);
    await link.line(isCarrierOn);
    const mark = link.lines.length;
    for (let restarts = 0; restarts < 2; restarts++) {
      const from = link.lines.length;
      await restart(rig, ['-o', '256K']);
      await link.line(stays, from);
    }
    expect(link.lines.slice(mark).filter(isState)).toEqual([]);
    const peers = JSON.parse((await run(['peers', '-S', rig.socket, '--json'])).stdout).peers;
    expect(peers).toMatchObject([{ stateName: 'RESET' }]);
    expect(device.lines.findLast(isState)).toMatchObject({ state: 'orphaned' });
    // A driver that starts anew on the same memory is still met there.
    vmm.writeRegister(STATE, State.RESET);
    await link.line((line) => isState(line) && !line.carrier, mark);
    await drive(vmm);
    const before = link.lines.length;
    await link.line(isCarrierOn, mark + 1);
    vmm.close();
    await link.line(isUp, before);
    using _vmm1 = await attach(path);
    await link.line(isCarrierOn, link.lines.findLastIndex(isUp));
    expect(link.lines.findLast(isUp)).toMatchObject({ outputSectionSize: 0x40000 });
  });

  it('a link leaves a VM whose device was killed, once that is back', async () => {
    await using rig = new Rig();
    await restart(rig);
    const { link, device, path } = await linkAndDevice(rig);
    using _vmm2 = await attach(path);
    await link.line(isCarrierOn);
    const mark = link.lines.length;
    await restart(rig);
    await device.stop('SIGKILL');
    await link.line(stays, mark);
    const next = new Program(['device', '--json', '-S', rig.socket, '--vfio-user', path]);
    rig.peers[1] = next;
    await next.line(({ state }) => state === 'waiting');
    using _vmm3 = await attach(path);
    await link.line(isUp, mark);
    await link.line(isCarrierOn, mark);
  });

  it('says why it cannot come back whenever that changes, and that it is back', async () => {
    await using rig = await Rig.up({ net: ['--mtu', '60000'] });
    const [link, other] = rig.peers as [Program, Program];
    let mark = link.lines.length;
    const expectLine = async (pattern: RegExp) => {
      await link.line(logs(pattern), mark);
      mark = link.lines.length;
    };
    await other.stop();
    await restart(rig, ['-P', '0x4000']);
    await expectLine(/^no connection: the host server offers protocol 0x4000/);
    await restart(rig, ['-o', '64K']);
    await expectLine(/^no connection: .*MTU 60000: output sections of 65536 bytes/);
    await restart(rig, ['--allow-uid', String(NOBODY)]);
    await expectLine(/^no connection: host server at .*closed the connection at once/);
    await restart(rig);
    await expectLine(/^connected$/);
    rig.startPeer(1);
    await rig.bothUp([mark, 0]);
  });
});

describeNetwork('a server of another user', () => {
  it('is not connected to, nor one whose memory can be truncated as before it could not', async () => {
    await using rig = new Rig();
    chmodSync(rig.directory, 0o777);
    await restart(rig);
    for (const end of [0, 1] as const) rig.startPeer(end);
    await rig.bothUp();
    const marks = rig.marks;
    const refuse = (pattern: RegExp) =>
      Promise.all(rig.peers.map((peer, end) => peer.line(logs(pattern), marks[end])));
    await restart(rig, ['--mode', '666'], NOBODY);
    await refuse(/it is run by user 65534, the one before by user 0/);
    await restart(rig, ['-m', '/dev/shm']);
    await refuse(/any client can truncate its memory/);
    await expectPing(rig);
    for (const [end, { lines }] of rig.peers.entries()) {
      expect(lines.slice(marks[end]).filter(isState)).toEqual([]);
    }
    await restart(rig);
    await rig.bothUp(marks);
  });

  it('may be followed by one of root', async () => {
    await using rig = new Rig();
    chmodSync(rig.directory, 0o777);
    await restart(rig, ['--mode', '666', '-m', '/dev/shm'], NOBODY);
    for (const end of [0, 1] as const) rig.startPeer(end);
    await rig.bothUp();
    const marks = rig.marks;
    await restart(rig);
    await rig.bothUp(marks);
  });
});

describe('an evicted', () => {
  const EVICT = ['--evict-after', '1'];

  it('link leaves its ID to its successor, and comes back when there is room', async () => {
    await using rig = new Rig();
    using third = Netns.create();
    await restart(rig, EVICT);
    for (const end of [0, 1] as const) rig.startPeer(end);
    await rig.bothUp();
    const [evicted, killed] = rig.peers as [Program, Program];
    const { id } = await evicted.line(isUp);
    evicted.child.kill('SIGSTOP');
    const gone = rig.server.line(({ cause, id: of }) => cause === 'not-reading' && of === id);
    await killed.stop('SIGKILL');
    const other = rig.startPeer(1);
    await gone;
    const argv = ['net', '--json', '--socket', rig.socket, '--tap', 'ivn0', '--netns', third.path];
    const successor = new Program([...argv, '--address', '10.64.0.1/24']);
    expect(await successor.line(isUp)).toMatchObject({ id });
    await Promise.all([successor.line(isCarrierOn), other.line(isCarrierOn)]);
    const marks = [successor.lines.length, other.lines.length];
    const mark = evicted.lines.length;
    evicted.child.kill('SIGCONT');
    await evicted.line(logs(/has disconnected this peer.*; the link starts anew$/), mark);
    await evicted.line(logs(/no connection: .*no room/), mark);
    const result = await ping({ netns: third.path, to: '10.64.0.2', count: 50, timeoutMs: 5000 });
    expect(result).toMatchObject({ sent: 50, lost: 0 });
    expect(successor.lines.slice(marks[0])).toEqual([]);
    expect(other.lines.slice(marks[1])).toEqual([]);
    await successor.stop();
    await evicted.line(isCarrierOn, mark);
    await expectPing(rig);
  });

  it('device disconnects its VMM, which has the memory mapped, and joins anew', async () => {
    await using rig = new Rig();
    await restart(rig, EVICT);
    const { link, device, path } = await linkAndDevice(rig);
    using vmm = await attach(path);
    await link.line(isCarrierOn);
    const { id } = await device.line(isUp);
    device.child.kill('SIGSTOP');
    const gone = rig.server.line(({ cause, id: of }) => cause === 'not-reading' && of === id);
    await link.stop('SIGKILL');
    const next = rig.startPeer(0);
    await gone;
    const mark = device.lines.length;
    device.child.kill('SIGCONT');
    await device.line(logs(/was disconnected: restart its VM/), mark);
    expect(vmm.receive(1, [])).toBeNull();
    await device.line(({ state }) => state === 'waiting', mark);
    using _vmm4 = await attach(path);
    await next.line(isCarrierOn);
  });
});
