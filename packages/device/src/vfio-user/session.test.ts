import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { closeFd, SystemCallError } from '@ivshmem/linux';
import { createMemfd, mapPrivate, mapShared } from '@ivshmem/linux/memory';
import { UnixListener } from '@ivshmem/linux/socket';
import { clearEventFd, EPOLLIN, Epoll } from '@ivshmem/linux/wait';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { InterruptVectors } from './interrupt-vectors.ts';
import { Journal } from './journal.ts';
import { Command, IrqIndex, Region } from './messages.ts';
import type { PciDevice } from './pci-device.ts';
import { VfioUserSession } from './session.ts';
import { accessOf, u32s, VmmClient } from './vmm-client.test-support.ts';

// A session serves any PCI device: this one has nothing to do with ivshmem.

const { EIO, EINVAL } = constants.errno;
const SCRATCH_SIZE = 0x2000;
const memory = mapPrivate(Journal.SIZE);

/** Adds what is written to BAR 0, interrupts at each overflow of 16 bits, and has memory in BAR 4. */
class Adder implements PciDevice {
  readonly configurationSize = 4096;
  readonly scratch = createMemfd('adder', SCRATCH_SIZE);
  readonly bars = [
    { size: 16 },
    undefined,
    undefined,
    undefined,
    { size: SCRATCH_SIZE, mapped: { fd: this.scratch, areas: [{ offset: 0x1000, size: 0x1000 }] } },
  ];
  readonly vectors = new InterruptVectors(2);
  readonly configuration = Buffer.alloc(4096);
  sum = 0;
  events: string[] = [];

  constructor() {
    this.configuration.writeUInt32LE(0xadde1234, 0);
    this.configuration.writeUInt32LE(0x10000, 4092);
  }

  readConfiguration(offset: number, into: Uint8Array): void {
    this.configuration.copy(into, 0, offset, offset + into.length);
  }

  writeConfiguration(offset: number, bytes: Uint8Array): void {
    this.configuration.set(bytes, offset);
  }

  readBar(bar: number, offset: number, into: Uint8Array): void {
    if (bar === 4) throw new SystemCallError('mmap', 'adder', 12);
    if (offset === 0) into.set(u32s(this.sum).subarray(0, into.length));
  }

  writeBar(bar: number, offset: number, bytes: Uint8Array): void {
    this.events.push(`write ${bar} ${offset}`);
    for (const byte of bytes) this.sum += byte;
    if (this.sum <= 0xffff) return;
    this.sum &= 0xffff;
    this.vectors.signal(1);
  }

  reset(): void {
    this.sum = 0;
    this.events.push('reset');
  }

  close(): void {
    this.events.push('close');
  }
}

describe('a PCI device that is no ivshmem device', () => {
  let directory: string;
  let epoll: Epoll;
  let listener: UnixListener;
  let device: Adder;
  let session: VfioUserSession | undefined;
  let vmm: VmmClient;
  let before: number;
  let ends: (string | null)[];

  beforeEach(() => {
    before = readdirSync('/proc/self/fd').length;
    directory = mkdtempSync(join(tmpdir(), 'vfio-user-'));
    epoll = new Epoll();
    device = new Adder();
    ends = [];
    new Journal(memory, 0).clear();
    const path = join(directory, 'socket');
    listener = UnixListener.listen(path);
    epoll.add(listener.fd, EPOLLIN, () => {
      session = new VfioUserSession(listener.accept()!, epoll, {
        device,
        vectors: device.vectors,
        journal: new Journal(memory, 0),
        attached: (pid) => device.events.push(`attached by ${pid === process.pid ? 'us' : pid}`),
        ended: (_, violation) => ends.push(violation),
      });
    });
    vmm = new VmmClient(path, () => epoll.wait(0));
    epoll.wait(-1);
    vmm.version();
  });

  afterEach(() => {
    vmm.close();
    session?.close();
    epoll.remove(listener.fd);
    listener.close();
    epoll.close();
    closeFd(device.scratch);
    rmSync(directory, { recursive: true });
    expect(readdirSync('/proc/self/fd')).toHaveLength(before);
  });

  it('is found with its regions and vectors', () => {
    expect(device.events).toEqual(['attached by us']);
    expect(vmm.expect(Command.DEVICE_GET_INFO, u32s(16, 0, 0, 0)).payload).toEqual(u32s(16, 3, 9, 5));
    const infos = Array.from({ length: 9 }, (_, region) => vmm.regionInfo(region));
    expect(infos.map(({ size }) => size)).toEqual([16, 0, 0, 0, SCRATCH_SIZE, 0, 0, 4096, 0]);
    expect(infos[4]).toMatchObject({ flags: 0xf, areas: [{ offset: 0x1000, size: 0x1000 }] });
    const irqs = [IrqIndex.INTX, IrqIndex.MSI, IrqIndex.MSIX].map((index) =>
      vmm.expect(Command.DEVICE_GET_IRQ_INFO, u32s(16, 0, index, 0)).payload.readUInt32LE(12),
    );
    expect(irqs).toEqual([0, 0, 2]);
  });

  it('has its accesses and its reset', () => {
    expect(vmm.read(Region.CONFIGURATION, 0, 4).readUInt32LE()).toBe(0xadde1234);
    expect(vmm.read(Region.CONFIGURATION, 4092, 4).readUInt32LE()).toBe(0x10000);
    vmm.write(Region.CONFIGURATION, 0x40, Buffer.from('abcd', 'hex'));
    expect(device.configuration.toString('hex', 0x3f, 0x43)).toBe('00abcd00');
    vmm.write(0, 8, Uint8Array.of(1, 2, 3));
    expect(vmm.read(0, 0, 4).readUInt32LE()).toBe(6);
    vmm.expect(Command.DEVICE_RESET);
    expect(vmm.read(0, 0, 2).readUInt16LE()).toBe(0);
    expect(device.events.slice(1)).toEqual(['write 0 8', 'reset']);
  });

  it('never sees an access beyond a region', () => {
    for (const access of [
      accessOf(13, 0, 4),
      accessOf(0, 1, 1),
      accessOf(4093, Region.CONFIGURATION, 4),
      accessOf(0, 8, 1),
      accessOf(0, 0xffffffff, 4),
    ]) {
      expect(vmm.request(Command.REGION_READ, access).errno).toBe(EINVAL);
    }
    expect(
      vmm.request(Command.REGION_WRITE, Buffer.concat([accessOf(16, 0, 1), u32s(0).subarray(3)])).errno,
    ).toBe(EINVAL);
    expect(device.events).toHaveLength(1);
  });

  it('fails an access with EIO, and continues', () => {
    expect(vmm.request(Command.REGION_READ, accessOf(0, 4, 4)).errno).toBe(EIO);
    expect(vmm.read(0, 0, 4).readUInt32LE()).toBe(0);
  });

  it('shares its memory', () => {
    const [mapping] = vmm.map(vmm.regionInfo(4));
    using own = mapShared(device.scratch, SCRATCH_SIZE, { write: true });
    new Uint8Array(own.buffer)[0x1005] = 77;
    expect(new Uint8Array(mapping!.buffer)[5]).toBe(77);
  });

  it('interrupts on the vector that it signals', () => {
    const [first, second] = [vmm.bind(0), vmm.bind(1)];
    vmm.write(0, 0, new Uint8Array(16).fill(0xff));
    expect(clearEventFd(second)).toBe(false);
    device.sum = 0xffff;
    vmm.write(0, 0, Uint8Array.of(1));
    vmm.awaitInterrupt(second);
    expect(clearEventFd(first)).toBe(false);
    expect(vmm.request(Command.DEVICE_SET_IRQS, u32s(20, 0x24, IrqIndex.MSIX, 2, 1)).errno).toBe(EINVAL);
  });

  it('is closed when the VMM disconnects, or does what none should', () => {
    vmm.post(Command.VERSION, u32s(0));
    epoll.wait(-1);
    expect(ends).toEqual(['VERSION twice']);
    expect(device.events.at(-1)).toBe('close');
  });
});
