import { describe, expect, it } from 'vitest';
import { checkPayloadSize, NumberedPayload } from './numbered-payload.ts';
import { PATTERN_LENGTH, Pattern } from './pattern.ts';

describe('a numbered payload', () => {
  it.each([8, 9, 56, 1472, 65507])(
    'of %i bytes comes back as its number, and with any byte changed as damaged',
    (size) => {
      using payload = new NumberedPayload(size, 0xdeadbeef);
      const buffer = Buffer.alloc(size + 4);
      for (const sequence of [0, 1, 65536, 2 ** 32 - 1]) {
        payload.write(buffer, 4, sequence);
        expect(payload.read(buffer, 4, size, true)).toBe(sequence);
        // The pattern differs for each number, so it verifies the number, too.
        const covered = [0, 4, 7, 8, size - 1].filter((at) => at < size && (at > 3 || size > 8));
        for (const at of covered) {
          buffer[4 + at]! ^= 1;
          expect(payload.read(buffer, 4, size, true)).toBe(-1);
          buffer[4 + at]! ^= 1;
        }
        expect(payload.read(buffer, 4, size - 1, true)).toBe(-1);
      }
    },
  );

  it('is invalid if it belongs to another run', () => {
    using ours = new NumberedPayload(64, 1);
    using theirs = new NumberedPayload(64, 2);
    const buffer = Buffer.alloc(64);
    theirs.write(buffer, 0, 5);
    expect(ours.read(buffer, 0, 64, false)).toBe(-1);
  });

  it.each([7, 65508, 8.5, Number.NaN, -1])('cannot have %d bytes', (size) => {
    expect(() => checkPayloadSize(size)).toThrow(RangeError);
  });
});

describe('the pattern', () => {
  it('matches at its position, across its end, and nowhere else', () => {
    using pattern = new Pattern(4096);
    const position = PATTERN_LENGTH - 100;
    const data = Buffer.alloc(300);
    pattern.bytes.copy(data, 0, position, position + 300);
    expect(pattern.matches(data, 0, 300, position)).toBe(true);
    expect(pattern.matches(data, 100, 200, PATTERN_LENGTH)).toBe(true);
    expect(pattern.matches(data, 100, 200, 7 * PATTERN_LENGTH)).toBe(true);
    // Data shifted by a buffer, a page or a byte does not match.
    for (const shift of [1, 4096, 262144, -1])
      expect(pattern.matches(data, 0, 300, position + shift)).toBe(false);
  });
});
