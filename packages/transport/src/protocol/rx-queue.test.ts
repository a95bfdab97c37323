import { beforeEach, describe, expect, it } from 'vitest';
import type { Section } from './memory-layout.ts';
import { ringLayout } from './ring-layout.ts';
import { RxQueue } from './rx-queue.ts';
import { Violation } from './violation.ts';

const layout = ringLayout(0x1000);
const n = layout.length;
const section = (): Section => ({
  address: 0,
  length: layout.outputSectionSize,
  buffer: new ArrayBuffer(layout.outputSectionSize),
});

let own: Section;
let peer: Section;
let rx: RxQueue;
/** The peer's descriptors and avail ring. */
let descriptors: DataView;
let avail: DataView;

beforeEach(() => {
  own = section();
  peer = section();
  rx = new RxQueue(own, peer, layout);
  rx.initialise();
  descriptors = new DataView(peer.buffer);
  avail = new DataView(peer.buffer, layout.avail);
});

interface Offer {
  descriptor?: number;
  addr?: bigint;
  len?: number;
  flags?: number;
  next?: number;
}

/** The peer offers one more frame, by default of 60 bytes at the beginning of its data area. */
function offer({
  descriptor = 0,
  addr = BigInt(layout.data),
  len = 60,
  flags = 0,
  next = 0,
}: Offer = {}): void {
  if (descriptor < n) {
    descriptors.setBigUint64(16 * descriptor, addr, true);
    descriptors.setUint32(16 * descriptor + 8, len, true);
    descriptors.setUint16(16 * descriptor + 12, flags, true);
    descriptors.setUint16(16 * descriptor + 14, next, true);
  }
  const idx = avail.getUint16(2, true);
  avail.setUint16(4 + 2 * (idx % n), descriptor, true);
  avail.setUint16(2, idx + 1, true);
}

function take(frames = rx.available()): boolean[] {
  return Array.from({ length: frames }, () => rx.next());
}

/** The used ring as the peer sees it: used.idx, and the entries up to it (the last n at most). */
function completions(): { id: number; len: number }[] {
  const used = new DataView(own.buffer, layout.used);
  return Array.from({ length: Math.min(used.getUint16(2, true), n) }, (_, i) => ({
    id: used.getUint32(4 + 8 * i, true),
    len: used.getUint32(8 + 8 * i, true),
  }));
}

const all = 0xffff_ffff_ffff_ffffn;
const size = BigInt(layout.outputSectionSize);

describe('RxQueue', () => {
  it('takes frames as they were offered, and completes them with flush, not before', () => {
    offer({ descriptor: 5, addr: 0x901n, len: 60, next: 77 });
    offer({ descriptor: 2, addr: size - 14n, len: 14 });
    expect(rx.available()).toBe(2);
    expect([rx.next(), rx.offset, rx.length]).toEqual([true, 0x901, 60]);
    expect([rx.next(), rx.offset, rx.length]).toEqual([true, layout.outputSectionSize - 14, 14]);
    expect(rx.available()).toBe(0);
    expect(completions()).toEqual([]);
    rx.flush();
    expect(completions()).toEqual([
      { id: 5, len: 1 },
      { id: 2, len: 1 },
    ]);
    expect(rx.flush()).toBe(false);
  });

  it('takes a descriptor again once it was completed', () => {
    for (let i = 0; i < 3 * n; i++) {
      offer({ descriptor: 9 });
      expect(take()).toEqual([true]);
      rx.flush();
    }
    expect(rx.violation).toBe(Violation.NONE);
  });

  it('takes a queue full of frames in one batch', () => {
    for (let i = 0; i < n; i++) offer({ descriptor: n - 1 - i });
    expect(rx.available()).toBe(n);
    expect(take()).toEqual(Array(n).fill(true));
    expect(rx.available()).toBe(0);
    rx.flush();
    expect(completions().map(({ id }) => id)).toEqual(Array.from({ length: n }, (_, i) => n - 1 - i));
  });

  it('reads no frame of length 0 from outside', () => {
    offer({ addr: size, len: 0 });
    expect(take()).toEqual([true]);
    expect([rx.offset, rx.length]).toEqual([layout.outputSectionSize, 0]);
  });

  it.each<[string, Offer, Violation]>([
    ['descriptor n', { descriptor: n }, Violation.DESCRIPTOR_INDEX],
    ['descriptor 65535', { descriptor: 0xffff }, Violation.DESCRIPTOR_INDEX],
    ['the NEXT flag', { flags: 1, next: 1 }, Violation.DESCRIPTOR_FLAGS],
    ['the WRITE flag', { flags: 2 }, Violation.DESCRIPTOR_FLAGS],
    ['the INDIRECT flag', { flags: 4 }, Violation.DESCRIPTOR_FLAGS],
    ['all flags', { flags: 0xffff }, Violation.DESCRIPTOR_FLAGS],
    ['a frame before the data area', { addr: BigInt(layout.data) - 1n }, Violation.DESCRIPTOR_RANGE],
    ['a frame at 0', { addr: 0n }, Violation.DESCRIPTOR_RANGE],
    ['a frame beyond the end', { addr: size - 59n }, Violation.DESCRIPTOR_RANGE],
    ['a frame behind the section', { addr: size, len: 1 }, Violation.DESCRIPTOR_RANGE],
    ['nothing behind the section', { addr: size + 1n, len: 0 }, Violation.DESCRIPTOR_RANGE],
    ['a frame as long as the section', { len: layout.outputSectionSize }, Violation.DESCRIPTOR_RANGE],
    ['a length of 2^32 - 1', { len: 0xffffffff }, Violation.DESCRIPTOR_RANGE],
    ['a length of 2^31', { len: 0x80000000 }, Violation.DESCRIPTOR_RANGE],
    ['an end at 2^32', { addr: 0xffffffffn, len: 1 }, Violation.DESCRIPTOR_RANGE],
    ['an end that wraps 32 bits', { addr: 0xffffffffn, len: 0xffffffff }, Violation.DESCRIPTOR_RANGE],
    ['an address of 2^32', { addr: 0x1_0000_0000n + BigInt(layout.data) }, Violation.DESCRIPTOR_RANGE],
    ['an address of 2^63', { addr: 1n << 63n }, Violation.DESCRIPTOR_RANGE],
    ['an end at 2^64', { addr: all - 59n }, Violation.DESCRIPTOR_RANGE],
    ['an end that wraps 64 bits', { addr: all, len: layout.data + 61 }, Violation.DESCRIPTOR_RANGE],
  ])('%s: stands still until it is initialised', (_, wrong, violation) => {
    offer({ descriptor: 1 });
    offer(wrong);
    offer({ descriptor: 2 });
    expect(take(3)).toEqual([true, false, false]);
    expect([rx.violation, rx.available()]).toEqual([violation, 0]);

    // Valid frames do not restart the queue.
    avail.setUint16(2, 1, true);
    offer();
    expect([rx.next(), rx.available(), rx.violation]).toEqual([false, 0, violation]);
    rx.flush();
    expect(completions()).toEqual([{ id: 1, len: 1 }]);

    avail.setUint16(2, 0, true);
    rx.initialise();
    offer();
    expect([...take(), rx.violation]).toEqual([true, Violation.NONE]);
  });

  it.each([
    [0, n + 1],
    [0, 0xffff],
    [3, 2],
    [3, 3 + n + 1],
    [3, 0x8000],
  ])('avail.idx: after %i comes %i', (taken, idx) => {
    for (let i = 0; i < taken; i++) offer({ descriptor: i });
    take();
    rx.flush();
    avail.setUint16(2, idx, true);
    expect([rx.available(), rx.violation]).toEqual([0, Violation.AVAIL_INDEX]);
    expect(rx.next()).toBe(false);
    expect(rx.waitForFrames()).toBe(true);
  });

  it('counts the frames that were not completed against the queue length', () => {
    for (let i = 0; i < n; i++) offer({ descriptor: i });
    take(5);
    expect(rx.available()).toBe(n - 5);
    avail.setUint16(2, n + 5, true);
    expect([rx.available(), rx.violation]).toEqual([0, Violation.AVAIL_INDEX]);
  });

  it('takes the next frames after the previous ones were completed', () => {
    for (let i = 0; i < n; i++) offer({ descriptor: i });
    take(5);
    rx.flush();
    avail.setUint16(2, n + 5, true);
    expect([rx.available(), rx.violation]).toEqual([n, Violation.NONE]);
  });

  it.each([1, 7, n - 1])('a descriptor twice among %i that were not completed', (held) => {
    for (let i = 0; i < held; i++) offer({ descriptor: i });
    for (let again = 0; again < held; again++) {
      rx.initialise();
      const before = avail.getUint16(2, true);
      offer({ descriptor: again });
      expect(take(held + 1)).toEqual([...Array(held).fill(true), false]);
      expect(rx.violation).toBe(Violation.DESCRIPTOR_REPEATED);
      avail.setUint16(2, before, true);
    }
  });

  it('requests an interrupt for the next frame before it sleeps, and for no other', () => {
    const event = () => new DataView(own.buffer).getUint16(layout.used + 4 + 8 * n, true);
    offer({ descriptor: 0 });
    offer({ descriptor: 1 });
    expect([rx.waitForFrames(), event()]).toEqual([false, 0]);
    take(1);
    expect([rx.waitForFrames(), event()]).toEqual([false, 1]);
    take(1);
    expect([rx.waitForFrames(), event()]).toEqual([true, 2]);
  });
});
