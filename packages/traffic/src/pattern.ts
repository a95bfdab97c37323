import { type Mapping, mapPrivate } from '@ivshmem/linux/memory';

/**
 * Length of the pseudo-random pattern in bytes. A prime, so that no buffer, segment or page size divides it: bytes that
 * arrive at the wrong position of a stream do not match.
 */
export const PATTERN_LENGTH = 1048573;

/** The pattern, followed by its first `overlap` bytes, so that any part of up to that length is contiguous. */
export class Pattern {
  readonly bytes: Buffer;
  /** The address of {@link bytes}, for system calls. */
  readonly address: number;
  readonly overlap: number;
  readonly #memory: Mapping;

  constructor(overlap: number) {
    this.overlap = overlap;
    this.#memory = mapPrivate(PATTERN_LENGTH + overlap);
    this.address = this.#memory.address;
    this.bytes = Buffer.from(this.#memory.buffer, 0, PATTERN_LENGTH + overlap);
    let state = 0x9e3779b9;
    for (let i = 0; i < PATTERN_LENGTH; i++) {
      // xorshift32 (Marsaglia, 2003)
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      this.bytes[i] = state >>> 24;
    }
    this.bytes.copy(this.bytes, PATTERN_LENGTH, 0, overlap);
  }

  /** Whether `length` bytes (≤ overlap) of `data` at `offset` equal those at `position` of the repeated pattern. */
  matches(data: Buffer, offset: number, length: number, position: number): boolean {
    const start = position % PATTERN_LENGTH;
    return this.bytes.compare(data, offset, offset + length, start, start + length) === 0;
  }

  /** Unmaps; {@link bytes} must not be used again. */
  close(): void {
    this.#memory.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
