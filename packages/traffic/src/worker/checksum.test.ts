import { expect, it } from 'vitest';
import { internetChecksum } from './checksum.ts';

it('internetChecksum is that of RFC 1071', () => {
  // The example of section 3: the sum of 0001 f203 f4f5 f6f7 is ddf2.
  expect(internetChecksum(Buffer.from('0001f203f4f5f6f7', 'hex'), 0, 8)).toBe(0xffff - 0xddf2);
  expect(internetChecksum(Buffer.from('ff0001f203f4f5f6f7ff', 'hex'), 1, 8)).toBe(0xffff - 0xddf2);
  // An odd last byte counts as the upper half of a word.
  expect(internetChecksum(Uint8Array.of(0x12), 0, 1)).toBe(0xffff - 0x1200);
  // The largest of all does not overflow.
  expect(internetChecksum(new Uint8Array(65535).fill(0xff), 0, 65534)).toBe(0);
});
