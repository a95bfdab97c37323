import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LayoutError } from './memory-layout.ts';
import { PciConfigError, parsePciConfig, pciMemoryLayout } from './pci-config.ts';

/** As QEMU presents a device with the vendor-specific capability at 40h and MSI-X with two vectors at 58h. */
function device(): Buffer {
  const config = Buffer.alloc(256);
  config.writeUInt32LE(0x4106110a, 0x00);
  config.writeUInt16LE(0x0010, 0x06);
  config.writeUInt32LE(0xff000100, 0x08);
  config.writeUInt32LE(0x0000000c, 0x18);
  config[0x34] = 0x40;
  config.set([0x09, 0x58, 0x18, 0x01], 0x40);
  config.writeUInt32LE(0x1000, 0x44);
  config.writeBigUInt64LE(0x1ff000n, 0x48);
  config.writeBigUInt64LE(0x100000n, 0x50);
  config.set([0x11, 0x00, 0x01, 0x00], 0x58);
  return config;
}

function changed(change: (config: Buffer) => void): Buffer {
  const config = device();
  change(config);
  return config;
}

describe('configuration space', () => {
  it('contains protocol, sizes and vectors', () => {
    expect(parsePciConfig(device())).toEqual({
      protocol: 1,
      vendorCapability: 0x40,
      stateTableSize: 0x1000,
      readWriteSize: 0x1ff000,
      outputSectionSize: 0x100000,
      vectors: 2,
    });
  });

  it('has 0 vectors without MSI-X', () => {
    expect(parsePciConfig(changed((config) => config.fill(0, 0x41, 0x42))).vectors).toBe(0);
  });

  it.each([
    ['another vendor', (config: Buffer) => config.writeUInt16LE(0x8086, 0), /no ivshmem v2 device/],
    ['the first ivshmem', (config: Buffer) => config.writeUInt32LE(0x11101af4, 0), /no ivshmem v2 device/],
    ['another class', (config: Buffer) => config.writeUInt8(5, 0x0b), /no ivshmem v2 device/],
    ['no capabilities', (config: Buffer) => config.writeUInt16LE(0, 6), /no vendor-specific capability/],
    ['a short capability', (config: Buffer) => config.writeUInt8(0x10, 0x42), /too short/],
    ['no BAR 2', (config: Buffer) => config.writeUInt32LE(0, 0x18), /no BAR 2/],
    ['a section of 2^63 bytes', (config: Buffer) => config.writeBigUInt64LE(2n ** 63n, 0x50), /larger than/],
  ])('refuses %s', (_, change, message) => {
    expect(() => parsePciConfig(changed(change))).toThrow(PciConfigError);
    expect(() => parsePciConfig(changed(change))).toThrow(message);
  });

  it('does not follow capabilities in circles or out of the space', () => {
    const circle = changed((config) => {
      config.writeUInt8(0x58, 0x34);
      config.writeUInt8(0x58, 0x59);
    });
    expect(() => parsePciConfig(circle)).toThrow(/no vendor-specific capability/);
    const last = changed((config) => {
      config.copy(config, 0xfc, 0x40, 0x44);
      config.writeUInt8(0xfc, 0x34);
    });
    expect(() => parsePciConfig(last)).toThrow(/too short/);
  });

  it('is parsed or rejected, whatever the bytes are', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 0, maxLength: 256 }), (noise) => {
        const config = device().subarray(0, Math.max(noise.length, 12));
        config.set(noise.subarray(12), 12);
        try {
          expect(parsePciConfig(config).vectors).toBeLessThanOrEqual(2048);
        } catch (error) {
          expect(error).toBeInstanceOf(PciConfigError);
        }
      }),
    );
  });
});

describe('sections in BAR 2', () => {
  const config = parsePciConfig(device());

  it('follow one another', () => {
    expect(pciMemoryLayout(config, 2, 0x400000, 4096)).toEqual({
      size: 0x400000,
      readWriteOffset: 0x1000,
      readWriteSize: 0x1ff000,
      outputOffset: 0x200000,
      outputSectionSize: 0x100000,
      maxPeers: 2,
    });
  });

  it.each([
    ['one peer', config, 1, 0x400000],
    ['more peers than the state table holds', config, 1025, 2 ** 40],
    ['a BAR that is too small', config, 2, 0x200000],
    ['sizes that no page has', { ...config, readWriteSize: 0x1ff800 }, 2, 0x400000],
  ])('refuse %s', (_, sizes, peers, bar) => {
    expect(() => pciMemoryLayout(sizes, peers, bar, 4096)).toThrow(LayoutError);
  });
});
