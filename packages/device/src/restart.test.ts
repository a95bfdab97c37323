import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createHostServer, type HostServer } from '@ivshmem/host-server';
import { closeFd, duplicateFd } from '@ivshmem/linux';
import { createMemfd, mapShared } from '@ivshmem/linux/memory';
import {
  DescriptorKeeper,
  type DescriptorStore,
  descriptorStoreOf,
  NotifySocket,
} from '@ivshmem/linux/process';
import { UnixListener } from '@ivshmem/linux/socket';
import { clearEventFd, createEventFd, EPOLLIN, mainPoller } from '@ivshmem/linux/wait';
import { pci } from '@ivshmem/transport/protocol';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { inState, openFds } from './device.test-support.ts';
import { createDevice, type Device } from './device.ts';
import type { DeviceOptions } from './device-options.ts';
import { Command, Region } from './vfio-user/messages.ts';
import { VmmClient } from './vfio-user/vmm-client.test-support.ts';

// A device that is created again with what was left in a descriptor store. Each "process" is a thread here: what a process
// that is killed at any instruction leaves is for test/device-restart.test.ts.

const { Register } = pci;

let directory: string;
let before: number;
let server: HostServer | undefined;
let notify: NotifySocket;
let keeper: DescriptorKeeper;
let device: Device | undefined;
let vmms: VmmClient[];
let log: string[];
const path = (name: string) => join(directory, name);

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ivshmem-device-store-'));
  notify = NotifySocket.listen(path('notify'));
  mainPoller.add(notify.fd, EPOLLIN, manage);
  before = openFds();
  keeper = new DescriptorKeeper(100);
  serve();
  vmms = [];
  log = [];
});

afterEach(async () => {
  for (const vmm of vmms) vmm.close();
  await device?.close();
  device = undefined;
  server?.close();
  server = undefined;
  manage();
  keeper.close();
  expect(openFds()).toBeLessThanOrEqual(before);
  mainPoller.remove(notify.fd);
  notify.close();
  rmSync(path('vfio'), { force: true });
  expect(readdirSync(directory)).toEqual([]);
  rmSync(directory, { recursive: true });
});

function serve(): void {
  const memory = { size: 0x100000, outputSectionSize: 0x10000 };
  server = createHostServer({ socketPath: path('server'), ...memory, maxPeers: 3, vectors: 4, protocol: 1 });
}

/** The service manager handles what it was sent. */
function manage(): void {
  for (let message = notify.receive(); message !== null; message = notify.receive()) keeper.handle(message);
}

const prefix = 'ivshmem/vm/';
const names = () => {
  manage();
  return keeper.kept.map(({ name }) => name.slice(prefix.length)).toSorted();
};

/** The next process. */
async function start(options: Partial<DeviceOptions> = {}): Promise<Device> {
  manage();
  const store: DescriptorStore = descriptorStoreOf({
    socket: notify.path,
    prefix,
    left: keeper.duplicates(),
  });
  const all = { socketPath: path('server'), vfioUser: path('vfio'), ...options };
  device = await createDevice(all, undefined, (line) => log.push(line), store);
  device.log$.subscribe((line) => log.push(line));
  return device;
}

async function restart(options: Partial<DeviceOptions> = {}): Promise<Device> {
  await device!.close();
  log = [];
  return await start(options);
}

function connect(): VmmClient {
  const vmm = new VmmClient(path('vfio'), manage);
  vmms.push(vmm);
  return vmm;
}

/** Waits for a line of the log, since a line may come after the state. */
async function logged(pattern: RegExp): Promise<void> {
  while (!log.some((line) => pattern.test(line))) await new Promise((resolve) => setTimeout(resolve, 10));
}

/** A VMM with interrupts and registers in use. */
async function inUse(): Promise<{ vmm: VmmClient; irqs: number[] }> {
  await start();
  const vmm = connect();
  vmm.start();
  const irqs = vmm.enableMsix(4);
  vmm.writeRegister(Register.INTERRUPT_CONTROL, 1);
  vmm.writeRegister(Register.STATE, 0x12345678);
  return { vmm, irqs };
}

function expectInUse({ vmm, irqs }: { vmm: VmmClient; irqs: number[] }): void {
  expect([Register.ID, Register.INTERRUPT_CONTROL, Register.STATE].map((at) => vmm.readRegister(at))).toEqual(
    [0, 1, 0x12345678],
  );
  expect(vmm.read(Region.BAR2, 0, 4).readUInt32LE()).toBe(0x12345678);
  for (const irq of irqs) while (clearEventFd(irq));
  vmm.writeRegister(Register.DOORBELL, 2);
  vmm.awaitInterrupt(irqs[2]!);
}

describe('a device that is created again', () => {
  it('continues with its VMM, several times', async () => {
    const guest = await inUse();
    const kept = names();
    expect(kept.filter((name) => name.startsWith('vmm/'))).toEqual([
      'vmm/1',
      'vmm/2',
      'vmm/3',
      'vmm/4',
      'vmm/socket.1',
    ]);
    for (let round = 0; round < 3; round++) {
      const { info } = await restart();
      expect(info.id).toBe(0);
      expect(log.filter((line) => !line.includes('has kept the device over a restart'))).toEqual([]);
      // Interrupts that may have been lost come again.
      for (const irq of guest.irqs) guest.vmm.awaitInterrupt(irq);
      expectInUse(guest);
      expect(names()).toEqual(kept);
    }
  });

  it('answers a request that was sent meanwhile', async () => {
    const { vmm } = await inUse();
    await device!.close();
    const id = vmm.post(Command.DEVICE_RESET);
    await start();
    expect(vmm.reply(id, Command.DEVICE_RESET).errno).toBe(0);
    expect(vmm.readRegister(Register.STATE)).toBe(0);
  });

  it('accepts a VMM that has connected meanwhile, and keeps the permissions of the socket', async () => {
    await start({ mode: 0o640 });
    await device!.close();
    expect(statSync(path('vfio')).mode & 0o777).toBe(0o640);
    const vmm = connect();
    await start({ mode: 0o640 });
    vmm.start();
    expect(log.filter((line) => line.includes('anew'))).toEqual([]);
  });

  it('notices that its VMM has left meanwhile, and serves the next one', async () => {
    const { vmm } = await inUse();
    await device!.close();
    vmm.close();
    const next = connect();
    await start();
    await logged(/is gone; the device waits/);
    next.start();
    expect(next.readRegister(Register.STATE)).toBe(0);
    expect(names().filter((name) => name.startsWith('vmm/'))).toEqual(['vmm/socket.2']);
    expect(device!.stats()).toMatchObject({ attached: 1, violations: 0 });
  });

  it('serves its VMM without the host server if that has ended meanwhile', async () => {
    const guest = await inUse();
    await device!.close();
    server!.close();
    await inState(await start(), 'orphaned');
    expectInUse(guest);
    // Also the process after this one.
    await inState(await restart(), 'orphaned');
    expectInUse(guest);
    serve();
    guest.vmm.close();
    await inState(device!, 'waiting');
    connect().start();
    await inState(device!, 'attached');
  });

  it('moves to the next host server if it has no VMM', async () => {
    await start();
    await device!.close();
    server!.close();
    serve();
    await start();
    await inState(device!, 'no-server');
    await inState(device!, 'waiting');
    connect().start();
    expect(server!.peers).toHaveLength(1);
  });

  it.each([
    ['the VMM', (name: string) => name === 'vmm/socket.1', /the socket of the VMM was not left: the VM/],
    ['its port', (name: string) => name.startsWith('port/'), /the device has left its host server: the VM/],
    ['its state', (name: string) => name === 'state', null],
  ] as const)('starts anew if %s was not left', async (_what, isLost, line) => {
    const { vmm } = await inUse();
    await device!.close();
    manage();
    for (const { name } of [...keeper.kept]) {
      if (isLost(name.slice(prefix.length))) remove(name);
    }
    await start();
    await inState(device!, 'waiting');
    if (line !== null) await logged(line);
    expect(vmm.receive(1, [])).toBeNull();
    connect().start();
    expect(names().filter((name) => name.startsWith('vmm/'))).toHaveLength(1);
  });

  it.each<[string, Partial<DeviceOptions>, RegExp]>([
    [
      'isolation',
      { isolate: true },
      /another isolate: the device starts anew; if a VM was connected, restart it/,
    ],
  ])('starts anew with another %s', async (_what, options, line) => {
    const { vmm } = await inUse();
    await restart(options);
    expect(log).toContainEqual(expect.stringMatching(line));
    expect(vmm.receive(1, [])).toBeNull();
    connect().start();
  });

  it('keeps its VMM when the permissions of its socket change', async () => {
    const guest = await inUse();
    await restart({ mode: 0o666 });
    expect(statSync(path('vfio')).mode & 0o777).toBe(0o666);
    expectInUse(guest);
    guest.vmm.close();
    await inState(device!, 'waiting');
    connect().start();
  });

  it('starts anew with a state of another version, and of nonsense, in any place', async () => {
    await inUse();
    let seed = 1;
    const random = (limit: number) => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return (seed >>> 8) % limit;
    };
    const spoil = (at: number, length: number) => {
      const fd = keeper.kept.find(({ name }) => name === `${prefix}state`)!.fd;
      using memory = mapShared(fd, 8192, { write: true });
      const bytes = new Uint8Array(memory.buffer, at, length);
      for (let i = 0; i < length; i++) bytes[i] = random(256);
    };
    const places: [number, number][] = [
      [8, 4],
      [0, 8],
      [64, 20],
      [64 + 64, 24],
      [64 + 256, 100],
      [64 + 2304, 264],
      [4096, 128],
      [4096, 512],
      [0, 8192],
    ];
    for (const [at, length] of places) {
      await device!.close();
      manage();
      spoil(at, length);
      log = [];
      await start();
      // It goes on, or it starts anew.
      for (const vmm of vmms.splice(0)) vmm.close();
      await inState(device!, 'waiting');
      connect().start();
      vmms[0]!.bind(1);
    }
  });

  it('starts anew, or without what is missing, with descriptors in the wrong places', async () => {
    const eventfd = createEventFd();
    const file = createMemfd('another', 4096);
    for (let round = 0; round < 12; round++) {
      const guest = await inUse();
      await device!.close();
      manage();
      const all = keeper.kept.map(({ name }) => name);
      const name = all[(round * 5) % all.length]!;
      remove(name);
      const other = [eventfd, file, keeper.kept[round % keeper.kept.length]!.fd][round % 3]!;
      keeper.handle({
        pid: 0,
        variables: new Map(Object.entries({ FDSTORE: '1', FDNAME: name })),
        fds: [duplicateFd(other)],
      });
      await start();
      guest.vmm.close();
      await inState(device!, 'waiting');
      const next = connect();
      next.start();
      next.close();
      await device!.close();
      keeper.close();
    }
    closeFd(eventfd);
    closeFd(file);
  });

  it('replaces the socket of one that has ended without a store', async () => {
    await start();
    await device!.close();
    keeper.close();
    await start();
    connect().start();
  });

  it('says so if its socket is taken by another meanwhile', async () => {
    await start();
    await device!.close();
    rmSync(path('vfio'));
    using _other = UnixListener.listen(path('vfio'));
    keeper.handle({
      pid: 0,
      variables: new Map([
        ['FDSTOREREMOVE', '1'],
        ['FDNAME', `${prefix}listener`],
      ]),
      fds: [],
    });
    await expect(start()).rejects.toThrow(/EADDRINUSE/);
    device = undefined;
  });
});

function remove(name: string): void {
  keeper.handle({
    pid: 0,
    variables: new Map(Object.entries({ FDSTOREREMOVE: '1', FDNAME: name })),
    fds: [],
  });
}
