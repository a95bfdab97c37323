import { beforeEach, describe, expect, it } from 'vitest';
import type { Section } from './memory-layout.ts';
import { RING_ALIGN, ringLayout } from './ring-layout.ts';
import { TxQueue } from './tx-queue.ts';
import { Violation } from './violation.ts';

const layout = ringLayout(0x1000);
const n = layout.length;
const section = (size = layout.outputSectionSize): Section => ({
  address: 0,
  length: size,
  buffer: new ArrayBuffer(size),
});

let own: Section;
let peer: Section;
let tx: TxQueue;
/** The peer's used ring. */
let used: DataView;
/** How many completions the peer has published since initialisation. */
let completed: number;

beforeEach(() => {
  own = section();
  peer = section();
  tx = new TxQueue(own, peer, layout);
  tx.initialise();
  used = new DataView(peer.buffer, layout.used);
  completed = 0;
});

function send(...lengths: number[]): number[] {
  return lengths.map((length) => {
    const slot = tx.reserve(length);
    if (slot !== -1) tx.commit(length);
    return slot;
  });
}

/** The peer completes the next `count` frames; returns whether it would ring by the event index. */
function complete(count: number, change: { id?: number; len?: number } = {}): boolean {
  const old = completed;
  for (let i = 0; i < count; i++) {
    const position = completed % n;
    used.setUint32(4 + 8 * position, change.id ?? position, true);
    used.setUint32(8 + 8 * position, change.len ?? 1, true);
    completed++;
  }
  used.setUint16(2, completed, true);
  const event = new DataView(own.buffer).getUint16(layout.avail + 4 + 2 * n, true);
  return ((completed - event - 1) & 0xffff) < ((completed - old) & 0xffff);
}

describe('TxQueue', () => {
  describe('clears at its initialisation', () => {
    const cleared = () => new Uint8Array(own.buffer).lastIndexOf(0) + 1;
    beforeEach(() => {
      new Uint8Array(own.buffer).fill(0x55);
    });

    it('the whole section if nothing is known about it', () => {
      new TxQueue(own, peer, layout).initialise();
      expect(cleared()).toBe(layout.outputSectionSize);
    });

    it.each([0, layout.data, layout.data + 100])(
      'the rings, and the %i bytes that may not be zero',
      (dirty) => {
        new TxQueue(own, peer, layout, dirty).initialise();
        expect(cleared()).toBe(Math.max(dirty, layout.data));
      },
    );

    it('what frames have been written to since the last time, also to slots that were not used', () => {
      tx = new TxQueue(own, peer, layout, 0);
      for (let round = 0; round < 2; round++) {
        tx.initialise();
        const slot = tx.reserve(200);
        tx.commit(60);
        tx.reserve(100);
        new Uint8Array(own.buffer).fill(0x55);
        tx.initialise();
        expect(cleared()).toBe(slot + 200);
        new Uint8Array(own.buffer).fill(0x55);
      }
    });
  });

  it('shows frames to the peer with flush, not before', () => {
    const idx = () => new DataView(own.buffer).getUint16(layout.avail + 2, true);
    send(60, 60);
    expect({ idx: idx(), inFlight: tx.inFlight }).toEqual({ idx: 0, inFlight: 2 });
    tx.flush();
    expect(idx()).toBe(2);
    expect(tx.flush()).toBe(false);
  });

  it('returns the same slot until it is committed', () => {
    send(60);
    const slot = tx.reserve(500);
    expect(tx.reserve(500)).toBe(slot);
    expect(tx.reserve(60)).toBe(slot);
    tx.commit(60);
    expect(tx.reserve(60)).toBe(slot + RING_ALIGN);
  });

  it('accepts n frames in flight and not one more', () => {
    expect(send(...Array<number>(n).fill(14))).not.toContain(-1);
    expect(tx.reserve(14)).toBe(-1);
    tx.flush();
    complete(1);
    expect(tx.reclaim()).toBe(1);
    expect(send(14, 14)).toEqual([layout.data + n * RING_ALIGN, -1]);
  });

  it('uses the data area to its last byte', () => {
    const quarter = layout.dataSize / 4;
    expect(send(quarter, quarter, quarter, quarter)).toEqual(
      [0, 1, 2, 3].map((i) => layout.data + i * quarter),
    );
    expect(tx.reserve(1)).toBe(-1);
  });

  it('does not reuse any byte of a frame that the peer still holds', () => {
    const third = layout.dataSize / 3;
    const [first] = send(third, third, third);
    tx.flush();
    expect(tx.reserve(1)).toBe(-1);
    complete(1);
    expect(tx.reserve(1)).toBe(-1);
    tx.reclaim();
    expect(tx.reserve(third)).toBe(first);
    expect(tx.reserve(third + 1)).toBe(-1);
  });

  it('rejects completions of frames that were not flushed', () => {
    send(60);
    complete(1);
    expect({ taken: tx.reclaim(), violation: tx.violation }).toEqual({
      taken: 0,
      violation: Violation.USED_INDEX,
    });
  });

  it.each([
    ['used.idx ahead by one', () => complete(3), Violation.USED_INDEX],
    ['used.idx behind', () => used.setUint16(2, 0xffff, true), Violation.USED_INDEX],
    ['a foreign descriptor', () => complete(1, { id: 1 }), Violation.USED_ID],
    ['descriptor n', () => complete(1, { id: n }), Violation.USED_ID],
    ['descriptor 2^32 - 1', () => complete(1, { id: 0xffffffff }), Violation.USED_ID],
    ['descriptor 2^16', () => complete(1, { id: 0x10000 }), Violation.USED_ID],
    ['length 0', () => complete(1, { len: 0 }), Violation.USED_LENGTH],
    ['length 60', () => complete(1, { len: 60 }), Violation.USED_LENGTH],
    ['length 2^32 - 1', () => complete(2, { len: 0xffffffff }), Violation.USED_LENGTH],
  ])('%s: stands still until it is initialised', (_, misbehave, violation) => {
    send(60, 60);
    tx.flush();
    misbehave();
    expect(tx.reclaim()).toBe(0);
    expect(tx.violation).toBe(violation);

    // Valid completions do not restart the queue.
    completed = 0;
    complete(2);
    expect([tx.reclaim(), tx.reserve(60), tx.inFlight]).toEqual([0, -1, 2]);
    expect(tx.waitForRoom(60)).toBe(false);
    expect(tx.violation).toBe(violation);

    tx.initialise();
    used.setUint16(2, 0, true);
    expect([tx.violation, tx.inFlight, ...send(60)]).toEqual([Violation.NONE, 0, layout.data]);
  });

  it('continues if the peer repeats itself after 65536 completions', () => {
    send(60, 60);
    tx.flush();
    complete(2);
    expect(tx.reclaim()).toBe(2);
    used.setUint16(2, 2 + 0x10000, true);
    expect([tx.reclaim(), tx.violation]).toEqual([0, Violation.NONE]);
  });

  describe('waitForRoom', () => {
    it('does not allow sleep if the peer has made room already', () => {
      send(...Array<number>(n).fill(14));
      tx.flush();
      expect(tx.waitForRoom(14)).toBe(true);
      complete(1);
      expect(tx.waitForRoom(14)).toBe(false);
    });

    it('requests an interrupt for the completion of half of the frames', () => {
      send(...Array<number>(n).fill(14));
      tx.flush();
      expect(tx.waitForRoom(14)).toBe(true);
      const rings = Array.from({ length: n }, () => complete(1));
      expect(rings.indexOf(true)).toBeLessThanOrEqual(n / 2);
      expect(rings.filter(Boolean)).toHaveLength(1);
    });

    it('is woken if more than half were completed before its request and there is still no room', () => {
      // Only small frames were completed: the large ones still fill the data area.
      expect(send(64, 64, 64, 64, 64, 64, 640, 640, 640)).not.toContain(-1);
      tx.flush();
      complete(6);
      expect(tx.waitForRoom(595)).toBe(true);
      expect([complete(1), complete(1), complete(1)]).toContain(true);
      expect(tx.waitForRoom(595)).toBe(false);
    });

    it('does not wait for a frame that is not visible to the peer', () => {
      send(576);
      tx.flush();
      send(576, 576, 576);
      expect(tx.waitForRoom(595)).toBe(true);
      expect(complete(1)).toBe(true);
    });
  });

  it('stays within its section, of any size, with the largest frames', () => {
    for (const size of [0x1000, 0x2000, 0x4000, 0x10000, 0x7f000, 0x100000]) {
      const { data, maxMtu } = ringLayout(size);
      const queue = new TxQueue(section(size), section(size), ringLayout(size));
      queue.initialise();
      const length = maxMtu + 18;
      let frames = 0;
      for (let slot = queue.reserve(length); slot !== -1; slot = queue.reserve(length)) {
        expect(slot).toBeGreaterThanOrEqual(data);
        expect(slot + length).toBeLessThanOrEqual(size);
        queue.commit(length);
        frames++;
      }
      expect(frames).toBeGreaterThanOrEqual(3);
    }
  });
});
