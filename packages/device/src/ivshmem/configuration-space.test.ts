import { memoryLayout } from '@ivshmem/transport/protocol';
import { describe, expect, it } from 'vitest';
import {
  CONFIGURATION_SIZE,
  ConfigurationSpace,
  type DeviceIdentity,
  memoryRegionSize,
  msixRegionSize,
} from './configuration-space.ts';

const identity: DeviceIdentity = {
  id: 1,
  maxPeers: 3,
  protocol: 0x8003,
  vectors: 4,
  layout: memoryLayout(0x100000, 3, 0x10000),
};

const dump = (space: ConfigurationSpace, offset = 0, length = CONFIGURATION_SIZE) => {
  const bytes = Buffer.alloc(length);
  space.read(offset, bytes);
  return bytes.toString('hex');
};

const AFTER_RESET =
  '0a11064100001000' + // IDs, command, status
  '000380ff00000000' + // revision, protocol type, base class, header type
  '0000000000000000' + // BAR 0, BAR 1
  '0c00000000000000' + // BAR 2, 64 bits, prefetchable
  '0000000000000000' +
  '000000000a110641' + // subsystem
  '0000000040000000' + // no ROM; capabilities
  '0000000000000000' + // no interrupt pin
  '0958180000100000' + // vendor capability; state table of 4 KiB
  '00f00c0000000000' + // R/W section
  '0000010000000000' + // output sections
  '1100030001000000' + // MSI-X, 4 vectors, table in BAR 1
  '0108000000000000'; // pending bits in BAR 1

describe('the configuration space', () => {
  it('matches the specification after reset, byte for byte', () => {
    expect(dump(new ConfigurationSpace(identity))).toBe(AFTER_RESET.padEnd(512, '0'));
  });

  it('lets exactly the bits be written that the specification names', () => {
    const space = new ConfigurationSpace(identity);
    space.write(0, Buffer.alloc(CONFIGURATION_SIZE, 0xff));
    const written = Buffer.from(AFTER_RESET.padEnd(512, '0'), 'hex');
    written.writeUInt16LE(0x0406, 0x04);
    written.writeUInt32LE(0xfffff000, 0x10);
    written.writeUInt32LE(0xfffff000, 0x14);
    written.writeBigUInt64LE(0xfffffffffff0000cn, 0x18);
    written[0x43] = 0x01;
    written.writeUInt16LE(0xc003, 0x5a);
    expect(dump(space)).toBe(written.toString('hex'));
    space.write(0, Buffer.alloc(CONFIGURATION_SIZE));
    expect(dump(space)).toBe(AFTER_RESET.padEnd(512, '0'));
  });

  it.each([
    ['a byte', 0x43, '01'],
    ['a word', 0x42, 'ff01'],
    ['a dword', 0x40, 'ffffff01'],
  ])('takes one-shot mode as %s', (_, offset, bytes) => {
    const space = new ConfigurationSpace(identity);
    space.write(offset, Buffer.from(bytes, 'hex'));
    expect([space.oneShot, dump(space, 0x40, 4)]).toEqual([true, '09581801']);
  });

  it('exposes the settings that the device needs', () => {
    const space = new ConfigurationSpace(identity);
    expect([space.command, space.msixEnabled, space.oneShot]).toEqual([0, false, false]);
    space.write(0x04, Buffer.from([0x06, 0x04]));
    space.write(0x5a, Buffer.from([0x03, 0x80]));
    expect([space.command, space.msixEnabled]).toEqual([0x0406, true]);
    space.write(0x5a, Buffer.from([0x00, 0x40]));
    expect(space.msixEnabled).toBe(false);
  });

  it('returns to its initial values on reset', () => {
    const space = new ConfigurationSpace(identity);
    space.write(0, Buffer.alloc(CONFIGURATION_SIZE, 0xff));
    space.reset();
    expect(dump(space)).toBe(AFTER_RESET.padEnd(512, '0'));
  });

  it('reports sections that do not exist as 0', () => {
    const layout = memoryLayout(0x1000, 2, 0);
    expect(dump(new ConfigurationSpace({ ...identity, layout }), 0x44, 20)).toBe(`00100000${'0'.repeat(32)}`);
  });

  it.each([
    [1, 0x1000],
    [128, 0x1000],
    [129, 0x2000],
    [2048, 0x10000],
  ])('has room for the table of %i vectors', (vectors, size) => {
    expect(msixRegionSize(vectors)).toBe(size);
    const space = new ConfigurationSpace({ ...identity, vectors });
    const words = Buffer.from(dump(space, 0x58, 12), 'hex');
    expect([words.readUInt16LE(2), words.readUInt32LE(4), words.readUInt32LE(8)]).toEqual([
      vectors - 1,
      1,
      size / 2 + 1,
    ]);
  });

  it.each([0, 2049, 1.5])('rejects %d vectors', (vectors) => {
    expect(() => new ConfigurationSpace({ ...identity, vectors })).toThrow(/MSI-X has 1 to 2048$/);
  });

  it.each([
    [0x1000, 0x1000],
    [0x3000, 0x4000],
    [0x100000, 0x100000],
    [2 ** 33 + 0x1000, 2 ** 34],
  ])('rounds a memory of %i bytes up to a power of two', (size, bar) => {
    const layout = memoryLayout(size, 2, 0);
    expect(memoryRegionSize(layout)).toBe(bar);
    const space = new ConfigurationSpace({ ...identity, layout });
    space.write(0x18, Buffer.alloc(8, 0xff));
    const address = Buffer.from(dump(space, 0x18, 8), 'hex').readBigUInt64LE();
    expect(BigInt.asUintN(64, -(address & ~0xfn))).toBe(BigInt(bar));
  });
});
