import { closeFd, type SystemCallError } from '@ivshmem/linux';
import { createMemfd } from '@ivshmem/linux/memory';
import { createEventFd } from '@ivshmem/linux/wait';
import { pci } from '@ivshmem/transport/protocol';
import { describe, expect, it } from 'vitest';
import { inState, logLine, openFds, useDevices } from './device.test-support.ts';
import type { Device } from './device.ts';
import { Command, IrqIndex } from './vfio-user/messages.ts';
import { accessOf, u32s, type VmmClient } from './vfio-user/vmm-client.test-support.ts';

const fixture = useDevices();

/** A header with arbitrary fields. */
const header = (command: number, size: number, flags = 0) => u32s(command << 16, size, flags, 0);
/** More descriptors than fit, of a kind that does no harm. */
function withFds(count: number, use: (fds: number[]) => void): void {
  const fds = Array.from({ length: count }, () => createEventFd());
  try {
    use(fds);
  } finally {
    for (const fd of fds) closeFd(fd);
  }
}

type Attack = (vmm: VmmClient) => void;
/** What a VMM can do wrong before VERSION, and its line in the log. */
const early: [string, RegExp, Attack][] = [
  [
    'speaks another protocol',
    /a message has 16 to/,
    (v) => void v.socket.send(Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')),
  ],
  [
    'begins with something else',
    /DEVICE_GET_INFO before VERSION/,
    (v) => void v.post(Command.DEVICE_GET_INFO, u32s(16, 0, 0, 0)),
  ],
  ['speaks version 1.0', /version 1\.0 of vfio-user/, (v) => void v.post(Command.VERSION, u32s(1))],
  ['sends half a version', /VERSION with 2 bytes/, (v) => void v.post(Command.VERSION, Buffer.alloc(2))],
  [
    'leaves its capabilities open',
    /do not end in 0/,
    (v) => void v.post(Command.VERSION, Buffer.from('\0\0\0\0{}')),
  ],
  ['announces 4 GiB', /of 4294967295 bytes/, (v) => void v.socket.send(header(Command.VERSION, 0xffffffff))],
  [
    'disconnects within a header',
    /closed the connection within a message/,
    (v) => {
      v.socket.send(Buffer.alloc(7));
      v.socket.close();
    },
  ],
];
/** The same for one that has. */
const late: [string, RegExp, Attack][] = [
  ['sends VERSION twice', /VERSION twice/, (v) => void v.post(Command.VERSION, u32s(0))],
  [
    'announces 4 GiB',
    /REGION_WRITE of 4294967280 bytes/,
    (v) => void v.socket.send(header(Command.REGION_WRITE, 0xfffffff0)),
  ],
  [
    'announces less than a header',
    /of 15 bytes/,
    (v) => void v.socket.send(header(Command.DEVICE_RESET, 15)),
  ],
  ['sends a reply', /is no request/, (v) => void v.socket.send(header(Command.DEVICE_RESET, 16, 1))],
  [
    'reads 4 GiB',
    /REGION_READ of 4294967295 bytes/,
    (v) => void v.post(Command.REGION_READ, accessOf(0, 7, 0xffffffff)),
  ],
  [
    'writes more than it sends',
    /REGION_WRITE with 20 bytes/,
    (v) => void v.post(Command.REGION_WRITE, Buffer.concat([accessOf(0, 7, 5), Buffer.alloc(4)])),
  ],
  [
    'writes less than it sends',
    /REGION_WRITE with 20 bytes/,
    (v) => void v.post(Command.REGION_WRITE, Buffer.concat([accessOf(0, 7, 3), Buffer.alloc(4)])),
  ],
  ['sends a short DMA_MAP', /DMA_MAP with 31 bytes/, (v) => void v.post(Command.DMA_MAP, Buffer.alloc(31))],
  [
    'sends a short SET_IRQS with descriptors',
    /DEVICE_SET_IRQS with 4 bytes/,
    (v) => withFds(2, (fds) => void v.post(Command.DEVICE_SET_IRQS, u32s(20), fds)),
  ],
  [
    'sends descriptors with a command that takes none',
    /DEVICE_RESET with 3 descriptors/,
    (v) => withFds(3, (fds) => void v.post(Command.DEVICE_RESET, Buffer.alloc(0), fds)),
  ],
  [
    'sends descriptors with an unknown command',
    /command 77 with 1 descriptors/,
    (v) => withFds(1, (fds) => void v.post(77, Buffer.alloc(0), fds)),
  ],
  [
    'maps memory with two descriptors',
    /DMA_MAP with 2 descriptors/,
    (v) => withFds(2, (fds) => void v.post(Command.DMA_MAP, Buffer.alloc(32), fds)),
  ],
  [
    'binds with fewer descriptors than vectors',
    /for 3 interrupts with 2 descriptors/,
    (v) =>
      withFds(2, (fds) => void v.post(Command.DEVICE_SET_IRQS, u32s(20, 0x24, IrqIndex.MSIX, 0, 3), fds)),
  ],
  [
    'sends 200 descriptors',
    /more than 8 descriptors/,
    (v) =>
      withFds(200, (fds) => void v.post(Command.DEVICE_SET_IRQS, u32s(20, 0x24, IrqIndex.MSIX, 0, 200), fds)),
  ],
  [
    'sends descriptors with each byte of a header',
    /more than 8 descriptors/,
    (v) =>
      withFds(5, (fds) => {
        const bytes = header(Command.DEVICE_RESET, 16);
        try {
          for (let i = 0; i < 15; i++) v.socket.send(bytes.subarray(i, i + 1), fds);
        } catch (error) {
          // It was cut off before the header was complete.
          expect((error as SystemCallError).code).toBe('EPIPE');
        }
      }),
  ],
  [
    'sends descriptors behind a header',
    /with descriptors behind its header/,
    (v) =>
      withFds(1, (fds) => {
        v.socket.send(header(Command.DMA_MAP, 48));
        v.socket.send(Buffer.alloc(32), fds);
      }),
  ],
  [
    'binds something that is no eventfd',
    /no eventfd/,
    (v) => {
      const fd = createMemfd('not-an-eventfd', 4096);
      v.post(Command.DEVICE_SET_IRQS, u32s(20, 0x24, IrqIndex.MSIX, 0, 1), [fd]);
      closeFd(fd);
    },
  ],
  [
    'disconnects within a message',
    /closed the connection within a message/,
    (v) => {
      v.socket.send(header(Command.REGION_WRITE, 100));
      v.socket.close();
    },
  ],
];

/** The next VMM is served as if nothing had been, and no descriptor was lost. */
async function expectUnharmed(device: Device, before: number): Promise<void> {
  expect(openFds()).toBe(before);
  const next = fixture.vmm();
  next.start();
  next.writeRegister(pci.Register.STATE, 9);
  expect(next.readRegister(pci.Register.STATE)).toBe(9);
  next.close();
  await inState(device, 'waiting');
}

async function attackWith(said: RegExp, attack: Attack, started: boolean): Promise<void> {
  fixture.serve();
  const device = await fixture.device();
  const before = openFds();
  const line = logLine(device, /was disconnected/);
  const vmm = fixture.vmm();
  if (started) vmm.start();
  attack(vmm);
  expect(await line).toMatch(said);
  vmm.close();
  expect(device.stats().violations).toBe(1);
  await expectUnharmed(device, before);
}

describe('a VMM that has not sent VERSION is disconnected when it', () => {
  it.each(early)('%s', (_, said, attack) => attackWith(said, attack, false));
});

describe('a VMM is disconnected when it', () => {
  it.each(late)('%s', (_, said, attack) => attackWith(said, attack, true));
});
