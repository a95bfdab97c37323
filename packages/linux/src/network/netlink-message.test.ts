import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  attribute,
  decodeAttributes,
  decodeMessages,
  encodeMessage,
  textOf,
  u32,
  u32Of,
  zeroTerminated,
} from './netlink-message.ts';

describe('netlink messages', () => {
  it('are encoded as netlink(7) says', () => {
    const message = encodeMessage(16, 0x605, 7, attribute(3, zeroTerminated('ivn0')));
    expect(Buffer.from(message).toString('hex')).toBe(
      '1c000000' + '1000' + '0506' + '07000000' + '00000000' + '0900' + '0300' + '69766e30' + '00000000',
    );
  });

  it('are decoded as they were encoded', () => {
    const parts = fc.array(fc.record({ type: fc.nat(0x3fff), value: fc.uint8Array({ maxLength: 70 }) }));
    fc.assert(
      fc.property(fc.nat(0xffff), fc.nat(0xffff), parts, (type, flags, attributes) => {
        const encoded = attributes.map((a) => attribute(a.type, a.value));
        const datagram = Buffer.concat([encodeMessage(type, flags, 1, ...encoded), encodeMessage(3, 2, 1)]);
        const [first, second, ...more] = decodeMessages(datagram);
        expect(more).toEqual([]);
        expect(first).toMatchObject({ type, flags, sequence: 1 });
        expect(second).toMatchObject({ type: 3, flags: 2 });
        const expected = new Map(attributes.map((a) => [a.type, Buffer.from(a.value)]));
        const actual = [...decodeAttributes(first!.payload)].map(
          ([key, value]) => [key, Buffer.from(value)] as const,
        );
        expect(new Map(actual)).toEqual(expected);
      }),
      { numRuns: 200 },
    );
  });

  it('nest attributes', () => {
    const outer = decodeAttributes(attribute(18, attribute(1, zeroTerminated('veth')), attribute(2, u32(5))));
    const inner = decodeAttributes(outer.get(18)!);
    expect(textOf(inner.get(1)!)).toBe('veth');
    expect(u32Of(inner.get(2))).toBe(5);
  });

  it('never make a decoder read out of bounds or loop, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const total = (lengths: number[]) => lengths.reduce((sum, length) => sum + length, 0);
        expect(total(decodeMessages(bytes).map((m) => m.payload.length))).toBeLessThanOrEqual(bytes.length);
        expect(total([...decodeAttributes(bytes).values()].map((a) => a.length))).toBeLessThanOrEqual(
          bytes.length,
        );
      }),
    );
  });
});
