import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  Command,
  checkDma,
  decodeHeader,
  decodeIrqInfo,
  decodeRegionAccess,
  decodeRegionInfo,
  decodeSetIrqs,
  decodeVersion,
  encodeDeviceInfo,
  encodeErrorReply,
  encodeIrqInfo,
  encodeRegionInfo,
  encodeRegionRead,
  encodeRegionWrite,
  encodeReply,
  encodeVersion,
  VfioUserError,
} from './messages.ts';
import { QEMU_CAPABILITIES } from './vmm-client.test-support.ts';

const bytes = (hex: string) => new Uint8Array(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
const hex = (data: Uint8Array) => Buffer.from(data).toString('hex');
const join = (text: string) => text.replaceAll(' ', '');
/** Message 0x1234 with a command, 48 bytes long. */
const request = (command: number, size = 48) => ({ id: 0x1234, command, size, noReply: false });

describe('the header', () => {
  it('is decoded', () => {
    expect(decodeHeader(bytes('3412 0a00 24000000 00000000 00000000'))).toEqual(request(10, 36));
    expect(decodeHeader(bytes('0000 0a00 24000000 10000000 00000000')).noReply).toBe(true);
  });

  it.each([
    ['a reply', '0000 0100 10000000 01000000 00000000'],
    ['15 bytes', '0000 0100 0f000000 00000000 00000000'],
    ['1 MiB and 33 bytes', '0000 0a00 21001000 00000000 00000000'],
    ['4 GiB', '0000 0a00 ffffffff 00000000 00000000'],
  ])('of %s is refused', (_, header) => {
    expect(() => decodeHeader(bytes(header))).toThrow(VfioUserError);
  });

  it('of a reply echoes ID and command', () => {
    expect(hex(encodeReply(request(2)))).toBe(join('3412 0200 10000000 01000000 00000000'));
    expect(hex(encodeErrorReply(request(7), 22))).toBe(join('3412 0700 10000000 21000000 16000000'));
  });
});

describe('VERSION', () => {
  it('of QEMU is understood, and answered within its size', () => {
    const payload = Buffer.from(`\0\0\0\0${QEMU_CAPABILITIES}\0`);
    expect(decodeVersion(payload)).toEqual({ major: 0, minor: 0 });
    const reply = encodeVersion(request(1, 16 + payload.length));
    expect(hex(reply.subarray(0, 20))).toBe(join('3412 0100 54000000 01000000 00000000 00000000'));
    expect(Buffer.from(reply.subarray(20)).toString()).toBe(
      '{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576}}\0',
    );
  });

  it('is answered without capabilities if there is no room for them', () => {
    expect(encodeVersion(request(1, 83))).toHaveLength(20);
    expect(encodeVersion(request(1, 84))).toHaveLength(84);
  });

  it.each(['', '0000', '01000000', '00000000 7b7d'])('%s is refused', (payload) => {
    expect(() => decodeVersion(bytes(payload))).toThrow(VfioUserError);
  });
});

describe('DEVICE_GET_INFO', () => {
  it('is answered: a PCI device that can be reset, 9 regions, 5 interrupt indexes', () => {
    expect(hex(encodeDeviceInfo(request(4, 32), bytes('10000000 00000000 00000000 00000000')))).toBe(
      join('3412 0400 20000000 01000000 00000000 10000000 03000000 09000000 05000000'),
    );
  });
});

describe('DEVICE_GET_REGION_INFO', () => {
  const ask = bytes('20000000 00000000 02000000 00000000 0000000000000000 0000000000000000');
  const areas = [
    { offset: 0x1000, size: 0xd000 },
    { offset: 0x10000, size: 0x2000 },
  ];

  it('is decoded', () => {
    expect(decodeRegionInfo(ask)).toEqual({ argsz: 32, index: 2 });
  });

  it('is answered for a region that is trapped, and one that does not exist', () => {
    const head = '3412 0500 30000000 01000000 00000000';
    const { bytes: bar0, complete } = encodeRegionInfo(request(5), { argsz: 32, index: 0 }, 0x1000, []);
    expect(hex(bar0)).toBe(
      join(`${head} 20000000 03000000 00000000 00000000 0010000000000000 0000000000000000`),
    );
    expect(complete).toBe(false);
    expect(hex(encodeRegionInfo(request(5), { argsz: 32, index: 6 }, 0, []).bytes)).toBe(
      join(`${head} 20000000 00000000 06000000 00000000 0000000000000000 0000000000000000`),
    );
  });

  it('is answered in two steps if areas can be mapped', () => {
    const first = encodeRegionInfo(request(5), { argsz: 32, index: 2 }, 0x20000, areas);
    expect(first.complete).toBe(false);
    expect(hex(first.bytes)).toBe(
      join(
        '3412 0500 30000000 01000000 00000000 50000000 0f000000 02000000 20000000 0000020000000000 0000000000000000',
      ),
    );
    const second = encodeRegionInfo(request(5), { argsz: 80, index: 2 }, 0x20000, areas);
    expect(second.complete).toBe(true);
    expect(hex(second.bytes)).toBe(
      join(`3412 0500 60000000 01000000 00000000
        50000000 0f000000 02000000 20000000 0000020000000000 0000000000000000
        0100 0100 00000000 02000000 00000000
        0010000000000000 00d0000000000000 0000010000000000 0020000000000000`).replaceAll('\n', ''),
    );
  });
});

describe('interrupts', () => {
  it('DEVICE_GET_IRQ_INFO is decoded and answered', () => {
    expect(decodeIrqInfo(bytes('10000000 00000000 02000000 00000000'))).toBe(2);
    const head = '3412 0700 20000000 01000000 00000000';
    expect(hex(encodeIrqInfo(request(7), 2, 4))).toBe(join(`${head} 10000000 01000000 02000000 04000000`));
    expect(hex(encodeIrqInfo(request(7), 0, 0))).toBe(join(`${head} 10000000 00000000 00000000 00000000`));
  });

  it('DEVICE_SET_IRQS is decoded', () => {
    expect(decodeSetIrqs(bytes('14000000 24000000 02000000 01000000 03000000'))).toEqual({
      flags: 0x24,
      index: 2,
      start: 1,
      count: 3,
    });
  });
});

describe('accesses to regions', () => {
  it('REGION_READ is decoded and answered', () => {
    const payload = bytes('1000000000000000 00000000 04000000');
    expect(decodeRegionAccess(Command.REGION_READ, payload)).toEqual({ offset: 16, region: 0, count: 4 });
    const reply = encodeRegionRead(request(9), payload, 4);
    reply.data.set([1, 2, 3, 4]);
    expect(hex(reply.bytes)).toBe(
      join('3412 0900 24000000 01000000 00000000 1000000000000000 00000000 04000000 01020304'),
    );
  });

  it('REGION_WRITE is decoded and answered', () => {
    const payload = bytes('4300000000000000 07000000 01000000 01');
    expect(decodeRegionAccess(Command.REGION_WRITE, payload)).toEqual({ offset: 0x43, region: 7, count: 1 });
    expect(hex(encodeRegionWrite(request(10), payload))).toBe(
      join('3412 0a00 20000000 01000000 00000000 4300000000000000 07000000 01000000'),
    );
  });
});

it('payloads of any content are decoded, or refused as VfioUserError', () => {
  const decoders = [
    decodeVersion,
    decodeRegionInfo,
    decodeIrqInfo,
    decodeSetIrqs,
    (payload: Uint8Array) => decodeRegionAccess(Command.REGION_READ, payload),
    (payload: Uint8Array) => decodeRegionAccess(Command.REGION_WRITE, payload),
    (payload: Uint8Array) => checkDma(Command.DMA_MAP, payload),
    (payload: Uint8Array) => checkDma(Command.DMA_UNMAP, payload),
    (payload: Uint8Array) => encodeDeviceInfo(request(4), payload),
  ];
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), fc.constantFrom(...decoders), (payload, decode) => {
      try {
        decode(payload);
      } catch (error) {
        expect(error).toBeInstanceOf(VfioUserError);
      }
    }),
  );
});
