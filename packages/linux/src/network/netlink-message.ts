/**
 * The encoding of netlink(7): messages and attributes, both padded to 4 bytes. Integers are in host order, which is
 * little-endian wherever this project runs.
 */

/** Size of struct nlmsghdr in bytes: {u32 len, u16 type, u16 flags, u32 sequence, u32 port}. */
export const MESSAGE_HEADER_SIZE = 16;
/** Size of struct nlattr in bytes: {u16 len, u16 type}. */
export const ATTRIBUTE_HEADER_SIZE = 4;
/** The upper two bits of an attribute's type are flags (nested, network byte order). */
const ATTRIBUTE_TYPE_MASK = 0x3fff;

export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** The payload after the header, without padding. */
  readonly payload: Uint8Array;
}

const align4 = (length: number) => (length + 3) & ~3;

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function u8(value: number): Uint8Array {
  return Uint8Array.of(value);
}

export function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, value, true);
  return bytes;
}

/** UTF-8 with the terminating zero that the kernel's string attributes carry. */
export function zeroTerminated(text: string): Uint8Array {
  return new TextEncoder().encode(`${text}\0`);
}

/** The text of a string attribute, up to its terminating zero. */
export function textOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end === -1 ? bytes : bytes.subarray(0, end));
}

/** A u32 attribute's value; undefined if the attribute is absent or too short. */
export function u32Of(bytes: Uint8Array | undefined): number | undefined {
  return bytes !== undefined && bytes.length >= 4 ? viewOf(bytes).getUint32(0, true) : undefined;
}

function concatenate(offset: number, parts: readonly Uint8Array[]): Uint8Array {
  const length = parts.reduce((sum, part) => sum + part.length, offset);
  const bytes = new Uint8Array(align4(length));
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}

/** Encodes an attribute with padding. Its value is the concatenated parts; if these are attributes, it is nested. */
export function attribute(type: number, ...parts: Uint8Array[]): Uint8Array {
  const bytes = concatenate(ATTRIBUTE_HEADER_SIZE, parts);
  const view = viewOf(bytes);
  view.setUint16(
    0,
    parts.reduce((sum, part) => sum + part.length, ATTRIBUTE_HEADER_SIZE),
    true,
  );
  view.setUint16(2, type, true);
  return bytes;
}

/** Attributes by type; if a type is repeated, the last one. A truncated attribute ends the list. */
export function decodeAttributes(bytes: Uint8Array): Map<number, Uint8Array> {
  const attributes = new Map<number, Uint8Array>();
  const view = viewOf(bytes);
  for (let at = 0; at + ATTRIBUTE_HEADER_SIZE <= bytes.length; ) {
    const length = view.getUint16(at, true);
    if (length < ATTRIBUTE_HEADER_SIZE || at + length > bytes.length) break;
    const type = view.getUint16(at + 2, true) & ATTRIBUTE_TYPE_MASK;
    attributes.set(type, bytes.subarray(at + ATTRIBUTE_HEADER_SIZE, at + length));
    at += align4(length);
  }
  return attributes;
}

/** Encodes a message with padding: the parts are its family header and its attributes. */
export function encodeMessage(
  type: number,
  flags: number,
  sequence: number,
  ...parts: Uint8Array[]
): Uint8Array {
  const bytes = concatenate(MESSAGE_HEADER_SIZE, parts);
  const view = viewOf(bytes);
  view.setUint32(0, bytes.length, true);
  view.setUint16(4, type, true);
  view.setUint16(6, flags, true);
  view.setUint32(8, sequence, true);
  return bytes;
}

/** The messages of one datagram. A truncated message ends the list. */
export function decodeMessages(bytes: Uint8Array): NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  const view = viewOf(bytes);
  for (let at = 0; at + MESSAGE_HEADER_SIZE <= bytes.length; ) {
    const length = view.getUint32(at, true);
    if (length < MESSAGE_HEADER_SIZE || at + length > bytes.length) break;
    messages.push({
      type: view.getUint16(at + 4, true),
      flags: view.getUint16(at + 6, true),
      sequence: view.getUint32(at + 8, true),
      payload: bytes.subarray(at + MESSAGE_HEADER_SIZE, at + length),
    });
    at += align4(length);
  }
  return messages;
}
