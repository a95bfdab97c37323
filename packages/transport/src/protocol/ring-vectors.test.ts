import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { Section } from './memory-layout.ts';
import { ringLayout } from './ring-layout.ts';
import { RxQueue } from './rx-queue.ts';
import { TxQueue } from './tx-queue.ts';
import { Violation } from './violation.ts';

interface Part {
  offset: string;
  bytes: string;
  what?: string;
}
interface Vectors {
  section: string;
  initialised: Part[];
  exchanges: {
    name: string;
    receiveOnly: boolean;
    frames: string[];
    sender: Part[];
    pinned: Part[];
    receiver: Part[];
  }[];
  refusedByReceiver: { name: string; sender: Part[]; taken: number; violation: keyof typeof Violation }[];
  refusedBySender: { name: string; sent: number; receiver: Part[]; violation: keyof typeof Violation }[];
}

const vectors: Vectors = JSON.parse(
  readFileSync(new URL('../../../../docs/vectors/rings.json', import.meta.url), 'utf8'),
);
const layout = ringLayout(Number(vectors.section));

/** A section with these parts; everything else is zero. */
function section(parts: Part[] = []): Section {
  const bytes = new Uint8Array(layout.outputSectionSize);
  for (const { offset, bytes: hex } of parts) bytes.set(Buffer.from(hex, 'hex'), Number(offset));
  return { address: 0, length: bytes.length, buffer: bytes.buffer };
}

function initialised(own: Section, peer: Section): { tx: TxQueue; rx: RxQueue } {
  const queues = { tx: new TxQueue(own, peer, layout), rx: new RxQueue(own, peer, layout) };
  queues.tx.initialise();
  queues.rx.initialise();
  return queues;
}

function expectParts(actual: Section, parts: Part[]): void {
  for (const { offset, bytes, what } of parts) {
    const found = Buffer.from(actual.buffer, Number(offset), bytes.length / 2).toString('hex');
    expect({ offset, bytes: found, what }).toEqual({ offset, bytes, what });
  }
}

/** What a reader of the protocol page makes of the descriptors that a section offers. */
function offeredFrames({ buffer }: Section): string[] {
  const view = new DataView(buffer);
  return Array.from({ length: view.getUint16(layout.avail + 2, true) }, (_, i) => {
    const descriptor = 16 * view.getUint16(layout.avail + 4 + 2 * (i % layout.length), true);
    const offset = Number(view.getBigUint64(descriptor, true));
    const length = view.getUint32(descriptor + 8, true);
    expect(view.getUint16(descriptor + 12, true)).toBe(0);
    expect(offset).toBeGreaterThanOrEqual(layout.data);
    return Buffer.from(buffer, offset, length).toString('hex');
  });
}

describe('ring vectors', () => {
  it('a section is initialised, whatever was in it', () => {
    const own = section();
    new Uint8Array(own.buffer).fill(0xa5);
    initialised(own, section());
    expectParts(own, vectors.initialised);
    const { data } = layout;
    expect(new Uint8Array(own.buffer, data).every((byte) => byte === 0)).toBe(true);
  });

  it.each(vectors.exchanges.filter(({ receiveOnly }) => !receiveOnly))(
    '$name: sent',
    ({ frames, pinned }) => {
      const own = section();
      const peer = section();
      const { tx } = initialised(own, peer);
      for (const frame of frames) {
        const bytes = Buffer.from(frame, 'hex');
        const slot = tx.reserve(bytes.length);
        new Uint8Array(own.buffer).set(bytes, slot);
        tx.commit(bytes.length);
      }
      expect(tx.flush()).toBe(true);
      expectParts(own, pinned);
      expect(offeredFrames(own)).toEqual(frames);

      expect(tx.reclaim()).toBe(0);
      const used = new DataView(peer.buffer, layout.used);
      const avail = new DataView(own.buffer, layout.avail);
      for (let i = 0; i < frames.length; i++) {
        used.setUint32(4 + 8 * i, avail.getUint16(4 + 2 * i, true), true);
        used.setUint32(8 + 8 * i, 1, true);
      }
      used.setUint16(2, frames.length, true);
      expect(tx.reclaim()).toBe(frames.length);
      expect({ violation: tx.violation, inFlight: tx.inFlight }).toEqual({ violation: 0, inFlight: 0 });
    },
  );

  it.each(vectors.exchanges)('$name: received', ({ frames, sender, pinned, receiver }) => {
    const own = section();
    const peer = section(sender);
    expectParts(peer, pinned);
    const { rx } = initialised(own, peer);
    // Entries of the avail ring that were never offered are the sender's own business.
    new Uint8Array(own.buffer, layout.avail + 4, 2 * layout.length).fill(0);
    expect(rx.available()).toBe(frames.length);
    const taken = frames.map(() => {
      expect(rx.next()).toBe(true);
      return Buffer.from(peer.buffer, rx.offset, rx.length).toString('hex');
    });
    expect(taken).toEqual(frames);
    expect(rx.flush()).toBe(true);
    expect(rx.waitForFrames()).toBe(true);
    expect(Buffer.from(own.buffer)).toEqual(Buffer.from(section(receiver).buffer));
  });

  it.each(vectors.refusedByReceiver)('$name: $violation', ({ sender, taken, violation }) => {
    const { rx } = initialised(section(), section(sender));
    let frames = 0;
    for (let waiting = rx.available(); waiting > 0 && rx.next(); waiting--) frames++;
    expect({ frames, violation: rx.violation }).toEqual({ frames: taken, violation: Violation[violation] });
    expect(rx.available()).toBe(0);
  });

  it.each(vectors.refusedBySender)('$name: $violation', ({ sent, receiver, violation }) => {
    const { tx } = initialised(section(), section(receiver));
    for (let i = 0; i < sent; i++) {
      tx.reserve(60);
      tx.commit(60);
    }
    tx.flush();
    expect({ frames: tx.reclaim(), violation: tx.violation }).toEqual({
      frames: 0,
      violation: Violation[violation],
    });
    expect({ slot: tx.reserve(60), inFlight: tx.inFlight }).toEqual({ slot: -1, inFlight: sent });
  });
});
