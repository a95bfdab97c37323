import { OptionError } from '@ivshmem/linux';
import { PATTERN_LENGTH, Pattern } from './pattern.ts';

/** Bytes before the pattern: {u32 sequence, u32 token}, little-endian. */
export const PAYLOAD_HEADER_SIZE = 8;
/** Maximum payload of an IPv4 datagram: 65535 bytes less 20 for the IP header and 8 for that of UDP or ICMP. */
export const MAX_PAYLOAD_SIZE = 65507;

/** Distance in the pattern from the start of one payload to that of the next; any number that is not a divisor works. */
const STRIDE = 7919;

/** Throws OptionError if a datagram cannot have a payload of `size` bytes. */
export function checkPayloadSize(size: number): void {
  if (!Number.isInteger(size) || size < PAYLOAD_HEADER_SIZE || size > MAX_PAYLOAD_SIZE) {
    throw new OptionError(
      'size',
      `a payload of ${size} bytes: it can have ${PAYLOAD_HEADER_SIZE} to ${MAX_PAYLOAD_SIZE}`,
    );
  }
}

/**
 * The payloads of one run of datagrams: a sequence number, the run's token, and a pattern that differs for each number.
 * Allocates memory in the constructor only.
 */
export class NumberedPayload {
  readonly size: number;
  readonly #token: number;
  readonly #pattern: Pattern;

  constructor(size: number, token: number) {
    this.size = size;
    this.#token = token;
    this.#pattern = new Pattern(size);
  }

  /** Writes a whole payload. */
  write(buffer: Buffer, offset: number, sequence: number): void {
    this.number(buffer, offset, sequence);
    buffer.writeUInt32LE(this.#token, offset + 4);
    const start = this.#start(sequence);
    const length = this.size - PAYLOAD_HEADER_SIZE;
    this.#pattern.bytes.copy(buffer, offset + PAYLOAD_HEADER_SIZE, start, start + length);
  }

  /** Replaces the sequence number of a whole payload; sufficient if the pattern is not verified. */
  number(buffer: Buffer, offset: number, sequence: number): void {
    buffer.writeUInt32LE(sequence, offset);
  }

  /**
   * The sequence number of the payload of `length` bytes received at `offset`; -1 if its length, its token or (with
   * `verify`) any byte of the pattern is wrong.
   */
  read(buffer: Buffer, offset: number, length: number, verify: boolean): number {
    if (length !== this.size || buffer.readUInt32LE(offset + 4) !== this.#token) return -1;
    const sequence = buffer.readUInt32LE(offset);
    const patternAt = offset + PAYLOAD_HEADER_SIZE;
    if (!verify) return sequence;
    const intact = this.#pattern.matches(
      buffer,
      patternAt,
      length - PAYLOAD_HEADER_SIZE,
      this.#start(sequence),
    );
    return intact ? sequence : -1;
  }

  #start(sequence: number): number {
    return (sequence * STRIDE) % PATTERN_LENGTH;
  }

  close(): void {
    this.#pattern.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
