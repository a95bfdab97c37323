import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { LayoutError, memoryLayout } from './memory-layout.ts';

interface Sizes {
  size: string;
  maxPeers: number;
  outputSectionSize: string;
}
interface Vectors {
  layouts: (Sizes & {
    readWriteOffset: string;
    readWriteSize: string;
    outputOffset: string;
    outputs: string[];
  })[];
  refused: (Sizes & { why: string })[];
}

const { layouts, refused }: Vectors = JSON.parse(
  readFileSync(new URL('../../../../docs/vectors/memory-layout.json', import.meta.url), 'utf8'),
);

describe('memoryLayout', () => {
  it.each(layouts)(
    'lays out $size bytes for $maxPeers peers with $outputSectionSize bytes each',
    (expected) => {
      const layout = memoryLayout(
        Number(expected.size),
        expected.maxPeers,
        Number(expected.outputSectionSize),
      );
      expect(layout).toEqual({
        size: Number(expected.size),
        readWriteOffset: Number(expected.readWriteOffset),
        readWriteSize: Number(expected.readWriteSize),
        outputOffset: Number(expected.outputOffset),
        outputSectionSize: Number(expected.outputSectionSize),
        maxPeers: expected.maxPeers,
      });
      for (const [peer, offset] of expected.outputs.entries()) {
        expect(layout.outputOffset + peer * layout.outputSectionSize).toBe(Number(offset));
      }
      expect(layout.outputOffset + layout.maxPeers * layout.outputSectionSize).toBe(layout.size);
    },
  );

  it.each(refused)('rejects $size bytes for $maxPeers peers with $outputSectionSize each: $why', (sizes) => {
    const lay = () => memoryLayout(Number(sizes.size), sizes.maxPeers, Number(sizes.outputSectionSize));
    expect(lay).toThrow(LayoutError);
    expect(lay).not.toThrow(/\n/);
  });

  it('rejects sizes that are no numbers of bytes', () => {
    for (const odd of [Number.NaN, Number.POSITIVE_INFINITY, -4096, 4096.5, 2 ** 60]) {
      expect(() => memoryLayout(odd, 2, 0)).toThrow(LayoutError);
      expect(() => memoryLayout(0x400000, 2, odd)).toThrow(LayoutError);
      expect(() => memoryLayout(0x400000, odd, 0x1000)).toThrow(LayoutError);
    }
  });

  it('uses the page size of the machine', () => {
    expect(() => memoryLayout(0x21000, 2, 0x10000, 0x10000)).toThrow('multiple of 65536, the page size');
    expect(() => memoryLayout(0x40000, 2, 0x1000, 0x10000)).toThrow('multiple of 65536, the page size');
  });

  it('names the size that the sections need', () => {
    expect(() => memoryLayout(0x400000, 2, 0x200000)).toThrow('need 4198400');
  });
});
