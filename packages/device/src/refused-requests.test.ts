import { pci } from '@ivshmem/transport/protocol';
import { beforeAll, describe, expect, it } from 'vitest';
import { useDevices } from './device.test-support.ts';
import type { Device } from './device.ts';
import { Command, IrqIndex, Region } from './vfio-user/messages.ts';
import { accessOf, u32s, type VmmClient } from './vfio-user/vmm-client.test-support.ts';

// One VMM for all: each request must leave everything as it was.
const fixture = useDevices('file');
let device: Device;
let vmm: VmmClient;

beforeAll(async () => {
  fixture.serve();
  device = await fixture.device();
  vmm = fixture.vmm();
  vmm.start();
});

describe('a VMM gets an errno, and stays connected, when it', () => {
  const EINVAL = 22;
  const info = (index: number, argsz = 32) =>
    [Command.DEVICE_GET_REGION_INFO, u32s(argsz, 0, index, 0, 0, 0, 0, 0)] as const;
  const read = (offset: number | bigint, region: number, count: number) =>
    [Command.REGION_READ, accessOf(offset, region, count)] as const;
  const set = (flags: number, index: number, start: number, count: number) =>
    [Command.DEVICE_SET_IRQS, u32s(20, flags, index, start, count)] as const;
  it.each([
    ['sends an unknown command', [77, Buffer.alloc(0)], 38],
    ['asks for a region that does not exist', info(9), EINVAL],
    ['asks for region 2^32 - 1', info(0xffffffff), EINVAL],
    ['has no room for the answer', info(0, 31), EINVAL],
    ['asks for interrupts that do not exist', [Command.DEVICE_GET_IRQ_INFO, u32s(16, 0, 9, 0)], EINVAL],
    ['reads behind the configuration space', read(253, Region.CONFIGURATION, 4), EINVAL],
    ['reads behind a BAR', read(0xfff, Region.BAR0, 2), EINVAL],
    ['reads at 2^64 - 1', read(0xffffffffffffffffn, Region.BAR2, 4), EINVAL],
    ['reads from a region that does not exist', read(0, 3, 1), EINVAL],
    ['reads from region 2^32 - 1', read(0, 0xffffffff, 4), EINVAL],
    ['unbinds vectors that do not exist', set(0x24, IrqIndex.MSIX, 3, 2), EINVAL],
    ['unbinds vectors from 2^32 - 1 on', set(0x24, IrqIndex.MSIX, 0xffffffff, 0xffffffff), EINVAL],
    ['binds interrupts other than MSI-X', set(0x24, IrqIndex.INTX, 0, 0), EINVAL],
    ['asks for an action that there is not', set(0x3f, IrqIndex.MSIX, 0, 1), EINVAL],
    ['sets interrupts that do not exist', set(0x21, 5, 0, 0), EINVAL],
  ] as const)('%s', (_, [command, payload], errno) => {
    expect(vmm.request(command, payload)).toMatchObject({ flags: 0x21, errno, payload: Buffer.alloc(0) });
    expect(vmm.readRegister(pci.Register.MAXIMUM_PEERS)).toBe(3);
    expect(device.stats()).toMatchObject({ violations: 0, attached: 1 });
  });
});
