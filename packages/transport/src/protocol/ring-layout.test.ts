import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { LayoutError } from './memory-layout.ts';
import { DESCRIPTOR_SIZE, MIN_MTU, RING_ALIGN, ringLayout, USED_ENTRY_SIZE } from './ring-layout.ts';

interface Vectors {
  layouts: {
    section: string;
    n: number;
    avail: string;
    used: string;
    vrsize: string;
    qsize: string;
    defaultMtu: number;
    maxMtu: number;
  }[];
  tooSmall: string[];
}

const { layouts, tooSmall }: Vectors = JSON.parse(
  readFileSync(new URL('../../../../docs/vectors/ring-layout.json', import.meta.url), 'utf8'),
);

describe('ringLayout', () => {
  it.each(layouts)('lays out a section of $section bytes', (expected) => {
    const size = Number(expected.section);
    expect(ringLayout(size)).toEqual({
      outputSectionSize: size,
      length: expected.n,
      descriptors: 0,
      avail: Number(expected.avail),
      used: Number(expected.used),
      data: Number(expected.vrsize),
      dataSize: Number(expected.qsize),
      defaultMtu: expected.defaultMtu,
      maxMtu: expected.maxMtu,
    });
  });

  it.each(tooSmall)('rejects a section of %s bytes', (size) => {
    expect(() => ringLayout(Number(size))).toThrow(LayoutError);
    expect(() => ringLayout(Number(size))).toThrow(`${Number(size)} bytes are too small`);
  });

  it('rejects sections whose offsets would not fit into 32 bits', () => {
    for (const size of [2 ** 32 + 4096, 2 ** 40]) {
      expect(() => ringLayout(size)).toThrow(LayoutError);
      expect(() => ringLayout(size)).toThrow(/too large.*4G/);
    }
  });

  it('keeps the parts apart and inside the section for every number of pages up to 16M', () => {
    for (let size = 4096; size <= 0x1000000; size += 4096) {
      const { length, avail, used, data, dataSize, maxMtu } = ringLayout(size);
      const sound =
        avail === DESCRIPTOR_SIZE * length &&
        avail + 2 * (3 + length) <= used &&
        used + 6 + USED_ENTRY_SIZE * length <= data &&
        used % RING_ALIGN === 0 &&
        data % RING_ALIGN === 0 &&
        data + dataSize === size &&
        maxMtu >= MIN_MTU &&
        (length & (length - 1)) === 0;
      if (!sound) expect.fail(`layout of ${size} bytes`);
    }
  });
});
