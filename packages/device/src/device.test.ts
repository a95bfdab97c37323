import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { closeFd } from '@ivshmem/linux';
import { createMemfd } from '@ivshmem/linux/memory';
import { clearEventFd, drainEventFd } from '@ivshmem/linux/wait';
import { pci } from '@ivshmem/transport/protocol';
import { describe, expect, it } from 'vitest';
import { inState, logLine, pair, tableEntry, useDevices } from './device.test-support.ts';
import { Command, Region } from './vfio-user/messages.ts';

const fixture = useDevices();
const SECTION = 0x10000;
const MEMORY = 0x100000;
const outputs = MEMORY - 3 * SECTION;

describe('createDevice', () => {
  it('has information about itself, and removes its socket when it ends', async () => {
    fixture.serve();
    const device = await fixture.device();
    expect(device.info).toEqual({
      id: 0,
      maxPeers: 3,
      protocol: 1,
      vectors: 4,
      memorySize: MEMORY,
      bar2Size: MEMORY,
      outputSectionSize: SECTION,
    });
    await device.close();
    expect(await device.closed).toBeNull();
    expect(existsSync(join(fixture.directory, 'vfio-0'))).toBe(false);
  });

  it('serves the start of QEMU, message by message', async () => {
    fixture.serve();
    const device = await fixture.device();
    const vmm = fixture.vmm();
    const bar2 = vmm.start();
    await inState(device, 'attached');
    expect(bar2).toMatchObject({
      size: MEMORY,
      flags: 0xf,
      areas: [{ offset: 0x1000, size: MEMORY - 0x1000 }],
    });
    expect(vmm.regionInfo(Region.BAR0)).toMatchObject({ size: 0x1000, flags: 3 });
    expect(vmm.read(Region.CONFIGURATION, 0x40, 0x24).toString('hex')).toBe(
      `0958180000100000${u64(outputs - 0x1000)}${u64(SECTION)}110003000100000001080000`,
    );
  });

  it('passes doorbells both ways, each to its vector', async () => {
    const { vmms, irqs } = await pair(fixture);
    for (const [from, to] of [
      [0, 1],
      [1, 0],
    ] as const) {
      for (let vector = 0; vector < 4; vector++) {
        vmms[from].writeRegister(pci.Register.DOORBELL, (to << 16) | vector);
        vmms[to].awaitInterrupt(irqs[to]![vector]!);
        expect(irqs.flat().map((fd) => drainEventFd(fd!))).toEqual(Array(8).fill(0n));
      }
    }
  });

  it('rings a doorbell of its own', async () => {
    const { vmms, irqs } = await pair(fixture);
    vmms[1].writeRegister(pci.Register.DOORBELL, (1 << 16) | 2);
    vmms[1].awaitInterrupt(irqs[1]![2]!);
  });

  it('ignores doorbells of peers and vectors that do not exist, and counts them', async () => {
    const { devices, vmms, irqs } = await pair(fixture);
    const before = devices[0].stats();
    for (const value of [0x0001_0004, 0x0001_0103, 0x0002_0000, 0x0003_0000, 0xffff_ffff]) {
      vmms[0].writeRegister(pci.Register.DOORBELL, value);
    }
    const after = devices[0].stats();
    expect(after.doorbells - before.doorbells).toBe(5);
    expect(after.doorbellsWithoutEffect - before.doorbellsWithoutEffect).toBe(5);
    expect(irqs.flat().map((fd) => drainEventFd(fd!))).toEqual(Array(8).fill(0n));
  });

  it('loses interrupts that arrive while they are disabled, even if they are enabled right afterwards', async () => {
    const { devices, vmms, irqs } = await pair(fixture);
    for (let round = 0; round < 200; round++) {
      vmms[1].writeRegister(pci.Register.INTERRUPT_CONTROL, 0);
      vmms[0].writeRegister(pci.Register.DOORBELL, (1 << 16) | 1);
      vmms[1].writeRegister(pci.Register.DOORBELL, (1 << 16) | 1);
      vmms[1].writeRegister(pci.Register.INTERRUPT_CONTROL, 1);
      expect(clearEventFd(irqs[1]![1]!)).toBe(false);
    }
    expect(devices[1].stats().interruptsDropped).toBeGreaterThanOrEqual(200);
  });

  it('disables interrupts by each one in one-shot mode', async () => {
    const { vmms, irqs } = await pair(fixture);
    vmms[1].write(Region.CONFIGURATION, 0x43, Buffer.from([0xff]));
    expect(vmms[1].read(Region.CONFIGURATION, 0x40, 4).readUInt32LE()).toBe(0x01185809);
    for (let round = 0; round < 50; round++) {
      vmms[1].writeRegister(pci.Register.INTERRUPT_CONTROL, 1);
      vmms[0].writeRegister(pci.Register.DOORBELL, (1 << 16) | 1);
      vmms[0].writeRegister(pci.Register.DOORBELL, (1 << 16) | 2);
      expect(vmms[1].readRegister(pci.Register.INTERRUPT_CONTROL)).toBe(0);
      const came = [1, 2].map((vector) => clearEventFd(irqs[1]![vector]!));
      expect(came.filter((yes) => yes)).toHaveLength(1);
    }
  });

  it('publishes a state to all other peers once, by state table and vector 0', async () => {
    const { vmms, irqs } = await pair(fixture);
    vmms[0].writeRegister(pci.Register.STATE, 0x87654321);
    vmms[1].awaitInterrupt(irqs[1]![0]!);
    expect(tableEntry(vmms[1], 0)).toBe(0x87654321);
    expect(vmms[0].readRegister(pci.Register.STATE)).toBe(0x87654321);
    vmms[0].writeRegister(pci.Register.STATE, 0x87654321);
    vmms[0].writeRegister(pci.Register.DOORBELL, (1 << 16) | 3);
    vmms[1].awaitInterrupt(irqs[1]![3]!);
    expect(irqs.flat().map((fd) => drainEventFd(fd!))).toEqual(Array(8).fill(0n));
  });

  it('keeps the state table from being written', async () => {
    const { vmms } = await pair(fixture);
    vmms[0].writeRegister(pci.Register.STATE, 7);
    for (const vmm of vmms) vmm.write(Region.BAR2, 0, Buffer.alloc(16, 0xff));
    expect([0, 1, 2, 1023].map((peer) => tableEntry(vmms[1], peer))).toEqual([7, 0, 0, 0]);
  });

  it('sets its state to 0 on a reset, even on two, and notifies the others', async () => {
    const { vmms, irqs } = await pair(fixture);
    vmms[0].writeRegister(pci.Register.STATE, 3);
    vmms[1].awaitInterrupt(irqs[1]![0]!);
    vmms[0].write(Region.CONFIGURATION, 0x43, Buffer.from([1]));
    vmms[0].setIrqs(0x21, 0, 0);
    vmms[0].systemReset();
    vmms[1].awaitInterrupt(irqs[1]![0]!);
    expect(tableEntry(vmms[1], 0)).toBe(0);
    vmms[0].systemReset();
    expect(
      [pci.Register.STATE, pci.Register.INTERRUPT_CONTROL].map((at) => vmms[0].readRegister(at)),
    ).toEqual([0, 0]);
    expect(vmms[0].read(Region.CONFIGURATION, 0x43, 1)[0]).toBe(0);
    // The guest continues after it.
    irqs[0] = vmms[0].enableMsix(4);
    vmms[0].writeRegister(pci.Register.INTERRUPT_CONTROL, 1);
    vmms[1].writeRegister(pci.Register.DOORBELL, 1);
    vmms[0].awaitInterrupt(irqs[0]![1]!);
  });

  it('has memory that both VMMs map, and that reads the same if it is trapped', async () => {
    const { vmms, bars } = await pair(fixture);
    const [a, b] = vmms.map((vmm, i) => new Uint8Array(vmm.map(bars[i]!)[0]!.buffer));
    const at = outputs + SECTION + 5;
    b![at - 0x1000] = 0xab;
    expect(a![at - 0x1000]).toBe(0xab);
    expect(vmms[0].read(Region.BAR2, at - 5, 8).toString('hex')).toBe('0000000000ab0000');
  });

  it('with isolate, maps only its own section, and rejects writes to the others', async () => {
    const { vmms, bars } = await pair(fixture, { isolate: true });
    expect(bars.map(({ areas }) => areas)).toEqual([
      [{ offset: 0x1000, size: outputs + SECTION - 0x1000 }],
      [
        { offset: 0x1000, size: outputs - 0x1000 },
        { offset: outputs + SECTION, size: SECTION },
      ],
    ]);
    const [, own] = vmms[1].map(bars[1]!);
    new Uint32Array(own!.buffer)[1] = 0x11223344;
    const at = outputs + SECTION;
    vmms[0].write(Region.BAR2, at + 4, Buffer.alloc(4, 0xff));
    expect(vmms[0].read(Region.BAR2, at + 4, 4).readUInt32LE()).toBe(0x11223344);
    expect(vmms[0].read(Region.BAR2, at + 6, 2).readUInt16LE()).toBe(0x1122);
    expect(vmms[0].read(Region.BAR2, at, 8).readBigUInt64LE()).toBe(0x1122334400000000n);
    // Its own section is writable, mapped or by messages.
    vmms[1].write(Region.BAR2, at + 8, Buffer.from('0102030405060708', 'hex'));
    expect(vmms[0].read(Region.BAR2, at + 3, 9).toString('hex')).toBe('004433221101020304');
  });

  it('sets its state to 0 when the VMM disconnects, and serves the next one at the same socket', async () => {
    const { devices, vmms, irqs } = await pair(fixture);
    for (let round = 0; round < 5; round++) {
      const vmm = round === 0 ? vmms[0] : fixture.vmm(0);
      if (round > 0) vmm.start();
      vmm.writeRegister(pci.Register.STATE, 3);
      vmms[1].awaitInterrupt(irqs[1]![0]!);
      expect(tableEntry(vmms[1], 0)).toBe(3);
      const gone = logLine(devices[0], /is gone; the device waits for the next VMM$/);
      vmm.close();
      vmms[1].awaitInterrupt(irqs[1]![0]!);
      expect(tableEntry(vmms[1], 0)).toBe(0);
      await gone;
    }
    expect(devices[0].stats()).toMatchObject({ attached: 5, violations: 0, refused: 0 });
  });

  it('interrupts the others on vector 0 when it ends', async () => {
    const { devices, vmms, irqs } = await pair(fixture);
    vmms[0].writeRegister(pci.Register.STATE, 3);
    vmms[1].awaitInterrupt(irqs[1]![0]!);
    await devices[0].close();
    vmms[1].awaitInterrupt(irqs[1]![0]!);
    expect(tableEntry(vmms[1], 0)).toBe(0);
  });

  it('replaces and closes eventfds on request of the VMM', async () => {
    const { vmms, irqs } = await pair(fixture);
    const second = vmms[1].bind(1);
    vmms[0].writeRegister(pci.Register.DOORBELL, (1 << 16) | 1);
    vmms[1].awaitInterrupt(second);
    expect(clearEventFd(irqs[1]![1]!)).toBe(false);
    vmms[1].setIrqs(0x24, 1, 2);
    for (const vector of [1, 2, 3]) vmms[0].writeRegister(pci.Register.DOORBELL, (1 << 16) | vector);
    vmms[1].awaitInterrupt(irqs[1]![3]!);
    vmms[1].readRegister(pci.Register.INTERRUPT_CONTROL);
    expect([second, irqs[1]![2]!].map((fd) => clearEventFd(fd))).toEqual([false, false]);
    vmms[1].setIrqs(0x21, 0, 0);
    vmms[0].writeRegister(pci.Register.DOORBELL, (1 << 16) | 3);
    vmms[1].readRegister(pci.Register.INTERRUPT_CONTROL);
    expect(clearEventFd(irqs[1]![3]!)).toBe(false);
  });

  it('sends no interrupt without Bus Master or MSI-X', async () => {
    const { vmms, irqs } = await pair(fixture);
    const ring = () => {
      vmms[0].writeRegister(pci.Register.DOORBELL, (1 << 16) | 1);
      vmms[1].readRegister(pci.Register.INTERRUPT_CONTROL);
      return clearEventFd(irqs[1]![1]!);
    };
    expect(ring()).toBe(true);
    vmms[1].write(Region.CONFIGURATION, 0x04, Buffer.from([0x02, 0x04]));
    expect(ring()).toBe(false);
    vmms[1].write(Region.CONFIGURATION, 0x04, Buffer.from([0x06, 0x04]));
    expect(ring()).toBe(true);
    vmms[1].write(Region.CONFIGURATION, 0x5a, Buffer.from([0x03, 0x00]));
    expect(ring()).toBe(false);
  });

  it('has no pending interrupts', async () => {
    const { vmms } = await pair(fixture);
    vmms[1].writeRegister(pci.Register.INTERRUPT_CONTROL, 0);
    vmms[0].writeRegister(pci.Register.DOORBELL, 1 << 16);
    vmms[1].write(Region.BAR1, 0x800, Buffer.alloc(8, 0xff));
    expect(vmms[1].read(Region.BAR1, 0x800, 8).readBigUInt64LE()).toBe(0n);
  });

  it('closes the descriptors of guest memory', async () => {
    fixture.serve();
    await fixture.device();
    const vmm = fixture.vmm();
    vmm.start();
    const fd = createMemfd('guest', 4096);
    for (let i = 0; i < 2000; i++) vmm.dmaMap(i * 4096, 4096, [fd]);
    vmm.expect(Command.DMA_UNMAP, Buffer.alloc(24));
    vmm.close();
    closeFd(fd);
  });

  it('answers a burst of requests in order', async () => {
    fixture.serve();
    await fixture.device();
    const vmm = fixture.vmm();
    vmm.start();
    const payload = Buffer.alloc(32);
    const ids = Array.from({ length: 500 }, (_, i) => {
      const command = i % 2 === 0 ? Command.DMA_MAP : Command.DMA_UNMAP;
      return [vmm.post(command, i % 2 === 0 ? payload : payload.subarray(8)), command] as const;
    });
    for (const [id, command] of ids) expect(vmm.reply(id, command).flags).toBe(1);
  });
});

function u64(value: number): string {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes.toString('hex');
}
