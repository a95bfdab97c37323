import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Capability } from './capabilities.ts';
import {
  agreedGsoTypes,
  checkFrameHeader,
  FrameFlag,
  GsoType,
  HeaderFault,
  headerFaultText,
} from './frame-header.ts';

const { VNET_HDR, TSO, USO } = Capability;
const ALL = VNET_HDR | TSO | USO;

interface Fields {
  flags: number;
  gsoType: number;
  headerLength: number;
  gsoSize: number;
  start: number;
  offset: number;
}

function headerOf({ flags, gsoType, headerLength, gsoSize, start, offset }: Fields): Uint8Array {
  const bytes = Buffer.alloc(10);
  bytes.set([flags, gsoType]);
  bytes.writeUInt16LE(headerLength, 2);
  bytes.writeUInt16LE(gsoSize, 4);
  bytes.writeUInt16LE(start, 6);
  bytes.writeUInt16LE(offset, 8);
  return bytes;
}

/** A number, or one that is close to where something changes. */
const around = (max: number, ...edges: number[]) =>
  fc.oneof(
    fc.integer({ min: 0, max }),
    fc.constantFrom(...edges.flatMap((edge) => [edge - 1, edge, edge + 1])).filter((n) => n >= 0 && n <= max),
  );
const lengths = around(65553, 14, 34, 42, 54, 60, 74, 1514, 65553).map((length) => Math.max(14, length));
const fields = fc.record<Fields>({
  flags: fc.oneof({ weight: 5, arbitrary: fc.integer({ min: 0, max: 3 }) }, fc.integer({ min: 0, max: 255 })),
  gsoType: fc.oneof(
    { weight: 5, arbitrary: fc.constantFrom(0, 1, 4, 5, 0x81, 0x84) },
    fc.integer({ min: 0, max: 255 }),
  ),
  headerLength: around(65535, 0, 54, 66, 1514),
  gsoSize: around(65535, 0, 1, 8, 1448),
  start: around(65535, 14, 34, 54, 1514),
  offset: around(65535, 6, 16),
});
const capabilities = fc.constantFrom(VNET_HDR, VNET_HDR | TSO, VNET_HDR | USO, ALL);

describe('the check of a frame header', () => {
  it('accepts nothing that points outside the frame or uses an offload that was not negotiated', () => {
    let passed = 0;
    fc.assert(
      fc.property(fields, lengths, capabilities, (values, length, common) => {
        const fault = checkFrameHeader(headerOf(values), length, agreedGsoTypes(common));
        expect(headerFaultText(fault)).toEqual(expect.any(String));
        if (fault !== HeaderFault.NONE) return;
        passed++;
        const { flags, gsoType, headerLength, gsoSize, start, offset } = values;
        expect(flags & ~3).toBe(0);
        expect(headerLength).toBeLessThanOrEqual(length);
        if (flags & FrameFlag.NEEDS_CSUM) {
          expect(start).toBeGreaterThanOrEqual(14);
          expect(start + offset + 2).toBeLessThanOrEqual(length);
        }
        if (gsoType === GsoType.NONE) return;
        expect(flags & FrameFlag.NEEDS_CSUM).not.toBe(0);
        const tcp = (gsoType & 0x7f) !== GsoType.UDP_L4;
        if (tcp) expect(gsoSize).toBeGreaterThanOrEqual(8);
        else expect(gsoSize * 128).toBeGreaterThanOrEqual(length - start - 8);
        expect(common & (tcp ? TSO : USO)).not.toBe(0);
        if (!tcp) expect(gsoType & GsoType.ECN).toBe(0);
        expect(start + (tcp ? 20 : 8)).toBeLessThanOrEqual(length);
      }),
      { numRuns: 20_000 },
    );
    expect(passed).toBeGreaterThan(100);
  });

  it('accepts all headers that a kernel makes', () => {
    const options = fc.integer({ min: 0, max: 10 }).map((words) => 4 * words);
    fc.assert(
      fc.property(
        fc.constantFrom(GsoType.NONE, GsoType.TCPV4, GsoType.TCPV6, GsoType.UDP_L4),
        fc.boolean(),
        options,
        fc.integer({ min: 512, max: 65535 }),
        fc.integer({ min: 1, max: 65000 }),
        fc.nat(1000),
        (type, tag, extra, gsoSize, payload, more) => {
          const ipHeader = type === GsoType.TCPV6 ? 40 : 20;
          const udp = type === GsoType.UDP_L4;
          const start = 14 + (tag ? 4 : 0) + ipHeader;
          const headers = start + (udp ? 8 : 20 + extra);
          const header = headerOf({
            flags: FrameFlag.NEEDS_CSUM,
            gsoType: type,
            gsoSize: type === GsoType.NONE ? 0 : gsoSize,
            // The kernel's hint: what it has in one piece.
            headerLength: type === GsoType.NONE ? 0 : Math.min(headers + more, headers + payload),
            start,
            offset: udp ? 6 : 16,
          });
          const fault = checkFrameHeader(header, headers + payload, agreedGsoTypes(ALL));
          expect(headerFaultText(fault)).toBe('none');
        },
      ),
    );
  });

  it('accepts only plain frames without further capabilities', () => {
    const types = (common: number) =>
      [...agreedGsoTypes(common).entries()].filter(([, ok]) => ok).map(([t]) => t);
    expect(types(VNET_HDR)).toEqual([0]);
    expect(types(VNET_HDR | TSO)).toEqual([0, 1, 4, 0x81, 0x84]);
    expect(types(VNET_HDR | USO)).toEqual([0, 5]);
    expect(types(ALL)).toEqual([0, 1, 4, 5, 0x81, 0x84]);
  });

  it('reads only the first ten bytes', () => {
    const long = new Uint8Array(64).fill(0xff);
    long.fill(0, 0, 10);
    expect(checkFrameHeader(long, 60, agreedGsoTypes(ALL))).toBe(HeaderFault.NONE);
  });
});
