import { describe, expect, it } from 'vitest';
import { hasHostBits, parseIpAddress, parseIpPrefix } from './ip-address.ts';

const hex = (text: string) => Buffer.from(parseIpAddress(text).bytes).toString('hex');

describe('IP addresses', () => {
  it.each([
    ['10.0.0.255', '0a0000ff'],
    ['::', '00000000000000000000000000000000'],
    ['::1', '00000000000000000000000000000001'],
    ['fd00::1', 'fd000000000000000000000000000001'],
    ['fd00::', 'fd000000000000000000000000000000'],
    ['1:2:3:4:5:6:7:8', '00010002000300040005000600070008'],
    ['1:2:3:4:5:6:7::', '00010002000300040005000600070000'],
    ['2001:db8::ABCD:0:1', '20010db8000000000000abcd00000001'],
    ['::ffff:10.0.0.1', '00000000000000000000ffff0a000001'],
    ['::10.0.0.1', '0000000000000000000000000a000001'],
    ['1:2:3:4:5:6:10.0.0.1', '0001000200030004000500060a000001'],
  ])('takes %s', (text, bytes) => {
    expect(hex(text)).toBe(bytes);
  });

  it.each(['', '10.0.0', '10.0.0.256', 'fe80::1%lo', 'fd00:::1', 'host', '10.0.0.1/24'])(
    'rejects "%s"',
    (text) => {
      expect(() => parseIpAddress(text)).toThrow(RangeError);
    },
  );

  it.each(['10.0.0.1', '10.0.0.1/', '10.0.0.1/33', 'fd00::1/129', '10.0.0.1/-1', '10.0.0.1/8/8', '/8'])(
    'rejects "%s" as a prefix',
    (text) => {
      expect(() => parseIpPrefix(text)).toThrow(RangeError);
    },
  );

  it('detects bits after the prefix', () => {
    const clean = ['10.0.0.0/8', '0.0.0.0/0', '10.0.0.1/32', '10.128.0.0/9', 'fd00::/64', '::/0'];
    const dirty = ['10.0.0.1/8', '128.0.0.0/0', '10.64.0.0/9', 'fd00::1/64', 'fd00::1/127'];
    expect(clean.filter((text) => hasHostBits(parseIpPrefix(text)))).toEqual([]);
    expect(dirty.filter((text) => hasHostBits(parseIpPrefix(text)))).toEqual(dirty);
  });
});
