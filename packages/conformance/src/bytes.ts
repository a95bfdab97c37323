/** Bytes that are shown with a failure. */
export interface Dump {
  /** What they are, such as `descriptor 3 of the subject`. */
  readonly what: string;
  /** The offset of the first of them, in the section or message that they are from. */
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** Bytes of a longer dump that are shown. */
const SHOWN = 128;
const PER_LINE = 16;

/** A copy of bytes that may change at any time. */
export function dump(what: string, bytes: Uint8Array, offset = 0, length = bytes.length - offset): Dump {
  return { what, offset, bytes: bytes.slice(offset, offset + Math.min(length, SHOWN)) };
}

/** Lines such as `0x0200: 00 00 01 00`. */
export function dumpLines({ offset, bytes }: Dump): string[] {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += PER_LINE) {
    const hex = [...bytes.subarray(at, at + PER_LINE)].map((byte) => byte.toString(16).padStart(2, '0'));
    lines.push(`0x${(offset + at).toString(16).padStart(4, '0')}: ${hex.join(' ')}`);
  }
  return lines;
}

/** A number as 0x…, for messages. */
export function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}
