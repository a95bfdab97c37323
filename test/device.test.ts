import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Netns } from '@ivshmem/linux/network';
import { clearEventFd } from '@ivshmem/linux/wait';
import { State } from '@ivshmem/transport/protocol';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { VmmClient } from '../packages/device/src/vfio-user/vmm-client.test-support.ts';
import { Program, run } from './support/program.ts';
import { describeNetwork } from './support/requirements.ts';

const STATE = 0x10;
const DOORBELL = 0x0c;

let directory: string;
let programs: Program[];
let vmms: VmmClient[];
const path = (name: string) => join(directory, name);

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ivshmem-device-command-'));
  programs = [];
  vmms = [];
});

afterEach(async () => {
  for (const vmm of vmms) vmm.close();
  await Promise.all(programs.map((program) => program.stop()));
  expect(readdirSync(directory)).toEqual([]);
  rmSync(directory, { recursive: true });
});

function start(...argv: string[]): Program {
  const program = new Program([...argv, '--json', '--until-eof'], {
    env: { ...process.env, TMPDIR: directory },
  });
  programs.push(program);
  return program;
}

function connect(name: string): VmmClient {
  const vmm = new VmmClient(path(name));
  vmms.push(vmm);
  return vmm;
}

async function startServer(): Promise<Program> {
  const options = ['-S', path('server'), '-l', '1M', '-o', '64K', '-n', '3', '-V', '4', '-P', '1'];
  const server = new Program(['server', '-F', '--json', ...options]);
  programs.push(server);
  await server.line(({ type }) => type === 'listening');
  return server;
}

describe('ivshmem device', () => {
  it('serves several VMs in one process, with IDs in the order of their sockets', async () => {
    await startServer();
    const device = start('device', '-S', path('server'), '--vfio-user', path('a'), '--vfio-user', path('b'));
    const up = await device.line(({ event, id }) => event === 'up' && id === 1);
    expect(up).toMatchObject({
      vfioUser: path('b'),
      maxPeers: 3,
      vectors: 4,
      bar2Size: 2 ** 20,
      isolate: false,
    });
    expect(up.qemu).toBe(
      `-device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"${path('b')}"}}'`,
    );
    const [a, b] = [connect('a'), connect('b')];
    for (const vmm of [a, b]) vmm.start();
    const [, irq] = b.enableMsix(4);
    b.writeRegister(0x08, 1);
    a.writeRegister(DOORBELL, (1 << 16) | 1);
    b.awaitInterrupt(irq!);
    expect(clearEventFd(irq!)).toBe(false);
    const exit = await device.stop('SIGINT');
    expect(exit).toMatchObject({ code: 0, stderr: '' });
    expect(
      device.lines.findLast(({ event, vfioUser }) => event === 'stats' && vfioUser === path('a')),
    ).toMatchObject({ attached: 1, doorbells: 1 });
    // The VM keeps running, and gets no further notification.
    expect(a.receive(1, [])).toBeNull();
  });

  it('says in plain text what to start QEMU with, and what protects memory', async () => {
    await startServer();
    const device = new Program(['device', '-v', '-S', path('server'), '--vfio-user', path('a'), '--isolate']);
    programs.push(device);
    await device.line((line) => line === `${path('a')}: waiting for a VM`);
    expect(device.lines.slice(0, 3)).toEqual([
      `${path('a')}: peer 0 of 3, BAR 2 of 1048576 bytes, 4 vectors; start QEMU (10.1 or later) with`,
      `  -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"${path('a')}"}}'`,
      expect.stringContaining('are trapped: the guest cannot write them'),
    ]);
  });

  it.each([
    ['no socket for a VM', [], 2, /^ivshmem: --vfio-user is missing: [^\n]+\n$/],
    ['a mode that is none', ['--vfio-user', '/tmp/x', '--mode', '888'], 2, /^ivshmem: [^\n]*octal[^\n]*\n$/],
    [
      'a group that does not exist',
      ['--vfio-user', '/tmp/x', '--group', 'no such'],
      2,
      /^ivshmem: [^\n]*none of that name[^\n]*\n$/,
    ],
    [
      'a path that is too long',
      ['--vfio-user', `/tmp/${'x'.repeat(108)}`],
      2,
      /^ivshmem: [^\n]*107 bytes[^\n]*\n$/,
    ],
    ['no host server', ['--vfio-user', '/tmp/x'], 1, /^ivshmem: connect [^\n]*ENOENT[^\n]*\n$/],
  ])('with %s says so in one line', async (_, argv, code, said) => {
    const exit = await run([
      'device',
      '-S',
      path('nobody'),
      ...argv.map((word) => word.replace('/tmp', directory)),
    ]);
    expect(exit).toMatchObject({ code, stdout: '' });
    expect(exit.stderr).toMatch(said);
  });
});

describeNetwork('ivshmem vm', () => {
  it('links a VM to an interface, and leaves nothing behind', async () => {
    using netns = Netns.create();
    const vm = start('vm', '--vfio-user', path('vm'), '--netns', netns.path, '--section-size', '64K');
    await vm.line(({ part, event }) => part === 'link' && event === 'up');
    expect(vm.lines.find(({ part, event }) => part === 'device' && event === 'up')).toMatchObject({
      id: 0,
      protocol: 1,
      vectors: 2,
      outputSectionSize: 0x10000,
    });
    for (let round = 0; round < 2; round++) {
      const from = vm.lines.length;
      const vmm = connect('vm');
      vmm.start();
      // A driver that runs through the handshake, and would then move frames.
      for (const [state, answer] of [
        [State.INIT, 'READY'],
        [State.READY, 'RUN'],
        [State.RUN, 'RUN'],
      ] as const) {
        vmm.writeRegister(STATE, state);
        await vm.line(({ event, local }) => event === 'state' && local === answer, from);
      }
      await vm.line(({ event, carrier }) => event === 'state' && carrier === true, from);
      vmm.close();
      await vm.line(({ event, state }) => event === 'state' && state === 'waiting', from);
      await vm.line(
        ({ event, carrier, local }) => event === 'state' && carrier === false && local === 'INIT',
        from,
      );
    }
    expect(await vm.stop()).toMatchObject({ code: 0, signal: null, stderr: '' });
  });

  it('ends with what it was started by', async () => {
    using netns = Netns.create();
    const vm = start('vm', '--vfio-user', path('vm'), '--netns', netns.path);
    await vm.line(({ part, event }) => part === 'link' && event === 'up');
    vm.child.stdin!.end();
    expect(await vm.exited).toMatchObject({ code: 0, stderr: '' });
  });

  it('leaves no file but the socket of the VM when it is killed, and the next one takes that over', async () => {
    using netns = Netns.create();
    const argv = ['vm', '--vfio-user', path('vm'), '--netns', netns.path];
    const files = () => readdirSync(directory).filter((name) => name !== 'vm');
    const before = files();
    for (const [first, second] of [['SIGKILL'], ['SIGTERM', 'SIGTERM'], ['SIGTERM']] as const) {
      const vm = new Program(['--verbose', ...argv, '--json'], {
        env: { ...process.env, TMPDIR: directory },
      });
      await vm.line(({ part, event }) => part === 'link' && event === 'up');
      expect(files()).toEqual(before);
      vm.child.kill(first);
      if (second !== undefined) vm.child.kill(second);
      await vm.exited;
      expect(files()).toEqual(before);
    }
    expect(existsSync(path('vm'))).toBe(false);
  });

  it('leaves nothing if the link cannot be created', async () => {
    const exit = await run(['vm', '--vfio-user', path('vm'), '--netns', path('none')], {
      env: { ...process.env, TMPDIR: directory },
    });
    expect(exit).toMatchObject({ code: 1 });
    expect(exit.stderr).toMatch(/^ivshmem: [^\n]+\n$/);
  });
});
