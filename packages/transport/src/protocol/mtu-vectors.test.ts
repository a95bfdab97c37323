import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { announceCapabilities, announcedCapabilities } from './capabilities.ts';
import type { Section } from './memory-layout.ts';
import { type AnnouncedMtu, agreedMtu, announcedMtu, announceMtu, longestFrame } from './mtu.ts';
import { MIN_MTU, ringLayout } from './ring-layout.ts';
import { TxQueue } from './tx-queue.ts';

interface Vectors {
  announcements: {
    name: string;
    section: string;
    usedFlags: string;
    availFlags: string;
    word: string;
    mtu: number | null;
    set: boolean;
  }[];
  announced: {
    section: string;
    capabilities: string;
    mtu: number;
    set: boolean;
    parts: { offset: string; bytes: string }[];
  }[];
  agreed: {
    name: string;
    own: number;
    set: boolean;
    peer: number | null;
    peerSet: boolean;
    largest: number;
    mtu: number;
  }[];
  longest: { mtu: number; peer: number | null; frame: number }[];
}

const vectors: Vectors = JSON.parse(
  readFileSync(new URL('../../../../docs/vectors/mtu.json', import.meta.url), 'utf8'),
);
const section = (size: number): Section => ({ address: 0, length: size, buffer: new ArrayBuffer(size) });
const announcement = (bytes: number | null, set: boolean): AnnouncedMtu | null =>
  bytes === null ? null : { bytes, set };

describe('the vectors of the MTU extension', () => {
  it.each(vectors.announcements)('announcement: $name', ({ mtu, set, ...vector }) => {
    const layout = ringLayout(Number(vector.section));
    const peer = section(layout.outputSectionSize);
    const view = new DataView(peer.buffer);
    view.setUint16(layout.used, Number(vector.usedFlags), true);
    view.setUint16(layout.avail, Number(vector.availFlags), true);
    view.setUint16(layout.avail + 6 + 2 * layout.length, Number(vector.word), true);
    expect(announcedMtu(peer, layout)).toEqual(announcement(mtu, set));
  });

  it.each(vectors.announced)('an MTU of $mtu in a section of $section bytes', ({ mtu, set, ...vector }) => {
    const layout = ringLayout(Number(vector.section));
    const own = section(layout.outputSectionSize);
    announceCapabilities(own, layout, Number(vector.capabilities));
    announceMtu(own, layout, { bytes: mtu, set });
    const expected = section(layout.outputSectionSize);
    for (const { offset, bytes } of vector.parts) {
      new Uint8Array(expected.buffer).set(Buffer.from(bytes, 'hex'), Number(offset));
    }
    expect(Buffer.from(own.buffer).equals(Buffer.from(expected.buffer))).toBe(true);
    expect(announcedCapabilities(own, layout)).toBe(Number(vector.capabilities));
    expect(announcedMtu(own, layout)).toEqual({ bytes: mtu, set });
  });

  it.each(vectors.agreed)('agreed: $name', ({ own, set, peer, peerSet, largest, mtu }) => {
    expect(agreedMtu({ bytes: own, set }, announcement(peer, peerSet), largest)).toBe(mtu);
  });

  it.each(vectors.longest)('longest frame at $mtu bytes, peer $peer: $frame', ({ mtu, peer, frame }) => {
    expect(longestFrame(mtu, announcement(peer, false))).toBe(frame);
  });
});

describe('the announced MTU', () => {
  it('never exceeds the limits of sections and interface, whatever the peer writes', () => {
    const sections = fc.constantFrom(0x1000, 0x2000, 0x4000, 0x10000, 0x7f000, 0x100000);
    const word = fc.nat(0xffff);
    const peers = fc.record({ usedFlags: fc.oneof(fc.constant(0x3176), word), availFlags: word, word });
    fc.assert(
      fc.property(sections, peers, (size, { usedFlags, availFlags, word }) => {
        const layout = ringLayout(size);
        const peer = section(size);
        const view = new DataView(peer.buffer);
        view.setUint16(layout.used, usedFlags, true);
        view.setUint16(layout.avail, availFlags, true);
        view.setUint16(layout.avail + 6 + 2 * layout.length, word, true);
        const own = { bytes: layout.defaultMtu, set: false };
        const mtu = agreedMtu(own, announcedMtu(peer, layout), layout.maxMtu);
        expect(mtu).toBeGreaterThanOrEqual(Math.min(own.bytes, 1280));
        expect(mtu).toBeLessThanOrEqual(layout.maxMtu);
        expect(mtu).toBeGreaterThanOrEqual(MIN_MTU);
      }),
    );
  });

  it('lies outside both rings, in a section of any size', () => {
    for (let size = 0x1000; size <= 0x100000; size += 0x1000) {
      const layout = ringLayout(size);
      const own = section(size);
      const queue = new TxQueue(own, section(size), layout);
      announceMtu(own, layout, { bytes: 9000, set: true });
      queue.waitForRoom(64);
      queue.reserve(64);
      queue.commit(64);
      queue.flush();
      expect(announcedMtu(own, layout)).toEqual({ bytes: 9000, set: true });
      expect(layout.avail + 8 + 2 * layout.length).toBeLessThanOrEqual(layout.used);
    }
  });

  it('leaves room for three frames of the largest MTU with headers and tags', () => {
    for (const size of [0x1000, 0x4000, 0x10000, 0x100000]) {
      const layout = ringLayout(size);
      const queue = new TxQueue(section(size), section(size), layout);
      queue.initialise();
      const slot = longestFrame(layout.maxMtu, { bytes: layout.maxMtu, set: true }) + 10 + 1;
      for (let i = 0; i < 3; i++) {
        expect(queue.reserve(slot)).not.toBe(-1);
        queue.commit(slot);
      }
    }
  });
});
