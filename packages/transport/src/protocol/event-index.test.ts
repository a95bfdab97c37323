import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { Section } from './memory-layout.ts';
import { ringLayout } from './ring-layout.ts';
import { RxQueue } from './rx-queue.ts';
import { TxQueue } from './tx-queue.ts';

interface Vectors {
  decisions: { old: number; new: number; event: number; ring: boolean }[];
}

const { decisions }: Vectors = JSON.parse(
  readFileSync(new URL('../../../../docs/vectors/event-index.json', import.meta.url), 'utf8'),
);

// Both queues work with one side at a time, and this side has come to `old` by way of real frames. Large enough for
// batches of 4096.
const layout = ringLayout(0x100000);
const section = (): Section => ({
  address: 0,
  length: layout.outputSectionSize,
  buffer: new ArrayBuffer(layout.outputSectionSize),
});
const batch = (from: number, to: number) => (to - from) & 0xffff;

describe('event index', () => {
  it('decides on the doorbell for avail.idx as in the vectors', () => {
    const [own, peer] = [section(), section()];
    const tx = new TxQueue(own, peer, layout);
    tx.initialise();
    const used = new DataView(peer.buffer, layout.used);
    let index = 0;
    const send = (frames: number): boolean => {
      for (let i = 0; i < frames; i++) {
        if (tx.reserve(64) === -1) throw new Error('no room');
        tx.commit(64);
      }
      const ring = tx.flush();
      for (let i = 0; i < frames; i++) {
        const position = ((index + i) & 0xffff) % layout.length;
        used.setUint32(4 + 8 * position, position, true);
        used.setUint32(8 + 8 * position, 1, true);
      }
      index = (index + frames) & 0xffff;
      used.setUint16(2, index, true);
      expect(tx.reclaim()).toBe(frames);
      return ring;
    };
    for (const decision of decisions) {
      while (index !== decision.old) send(Math.min(batch(index, decision.old), 1024));
      used.setUint16(4 + 8 * layout.length, decision.event, true);
      expect({ ...decision, ring: send(batch(decision.old, decision.new)) }).toEqual(decision);
    }
  });

  it('decides on the doorbell for used.idx as in the vectors', () => {
    const [own, peer] = [section(), section()];
    const rx = new RxQueue(own, peer, layout);
    rx.initialise();
    const descriptors = new DataView(peer.buffer);
    const avail = new DataView(peer.buffer, layout.avail);
    for (let i = 0; i < layout.length; i++) {
      descriptors.setUint32(16 * i, layout.data + 64 * i, true);
      descriptors.setUint32(16 * i + 8, 64, true);
      avail.setUint16(4 + 2 * i, i, true);
    }
    let index = 0;
    const complete = (frames: number): boolean => {
      index = (index + frames) & 0xffff;
      avail.setUint16(2, index, true);
      expect(rx.available()).toBe(frames);
      for (let i = 0; i < frames; i++) if (!rx.next()) throw new Error(`violation ${rx.violation}`);
      return rx.flush();
    };
    for (const decision of decisions) {
      while (index !== decision.old) complete(Math.min(batch(index, decision.old), 1024));
      avail.setUint16(4 + 2 * layout.length, decision.event, true);
      expect({ ...decision, ring: complete(batch(decision.old, decision.new)) }).toEqual(decision);
    }
  });
});
