import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  announceCapabilities,
  announcedCapabilities,
  commonCapabilities,
  fitsLargeFrames,
} from './capabilities.ts';
import { agreedGsoTypes, checkFrameHeader, HeaderFault } from './frame-header.ts';
import type { Section } from './memory-layout.ts';
import { ringLayout } from './ring-layout.ts';

interface Vectors {
  announcements: {
    name: string;
    section: string;
    usedFlags: string;
    availFlags: string;
    capabilities: string;
  }[];
  common: { one: string; other: string; common: string }[];
  sections: { section: string; largeFrames: boolean }[];
  announced: { section: string; capabilities: string; parts: { offset: string; bytes: string }[] }[];
  headers: {
    name: string;
    capabilities: string;
    header: string;
    length: number;
    fault: keyof typeof HeaderFault;
  }[];
}

const vectors: Vectors = JSON.parse(
  readFileSync(new URL('../../../../docs/vectors/offload.json', import.meta.url), 'utf8'),
);
const section = (size: string): Section => ({
  address: 0,
  length: Number(size),
  buffer: new ArrayBuffer(Number(size)),
});

describe('the vectors of the offload extension', () => {
  it.each(vectors.announcements)('announcement: $name', ({ section: size, ...vector }) => {
    const layout = ringLayout(Number(size));
    const peer = section(size);
    const view = new DataView(peer.buffer);
    view.setUint16(layout.used, Number(vector.usedFlags), true);
    view.setUint16(layout.avail, Number(vector.availFlags), true);
    expect(announcedCapabilities(peer, layout)).toBe(Number(vector.capabilities));
  });

  it.each(vectors.announced)(
    '$capabilities in a section of $section bytes',
    ({ section: size, ...vector }) => {
      const own = section(size);
      announceCapabilities(own, ringLayout(Number(size)), Number(vector.capabilities));
      const expected = section(size);
      for (const { offset, bytes } of vector.parts) {
        new Uint8Array(expected.buffer).set(Buffer.from(bytes, 'hex'), Number(offset));
      }
      expect(Buffer.from(own.buffer).equals(Buffer.from(expected.buffer))).toBe(true);
    },
  );

  it.each(vectors.common)('$one and $other have $common in common', ({ one, other, common }) => {
    expect(commonCapabilities(Number(one), Number(other))).toBe(Number(common));
    expect(commonCapabilities(Number(other), Number(one))).toBe(Number(common));
  });

  it.each(vectors.sections)('large frames in sections of $section bytes: $largeFrames', (vector) => {
    expect(fitsLargeFrames(ringLayout(Number(vector.section)))).toBe(vector.largeFrames);
  });

  it.each(vectors.headers)('header, $fault: $name', ({ capabilities, header, length, fault }) => {
    const agreed = agreedGsoTypes(Number(capabilities));
    expect(checkFrameHeader(Buffer.from(header, 'hex'), length, agreed)).toBe(HeaderFault[fault]);
  });
});
