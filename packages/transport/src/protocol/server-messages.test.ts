import { describe, expect, it } from 'vitest';
import {
  decodeMessageLength,
  decodeServerMessage,
  encodeEventFd,
  encodeInit,
  encodePeerGone,
  MAX_MESSAGE_SIZE,
  type ServerMessage,
  ServerProtocolError,
} from './server-messages.ts';

const bytes = (hex: string) => new Uint8Array(Buffer.from(hex.replaceAll(/\s/g, ''), 'hex'));

const vectors: { message: ServerMessage; hex: string }[] = [
  {
    message: {
      type: 'init',
      version: 2,
      id: 1,
      maxPeers: 3,
      vectors: 2,
      protocol: 0xc003,
      outputSectionSize: 0x1_2345_6000,
    },
    hex: `00000000 28000000 02000000 02000000 01000000 03000000 02000000 03c00000 0060452301000000`,
  },
  { message: { type: 'event-fd', id: 0x102, vector: 3 }, hex: '01000000 10000000 02010000 03000000' },
  { message: { type: 'peer-gone', id: 0x3ff }, hex: '02000000 0c000000 ff030000' },
];

function encode(message: ServerMessage): Uint8Array {
  switch (message.type) {
    case 'init':
      return encodeInit(message);
    case 'event-fd':
      return encodeEventFd(message.id, message.vector);
    case 'peer-gone':
      return encodePeerGone(message.id);
  }
}

/** A vector's bytes with the u32 at `offset` replaced. */
function with32(vector: number, offset: number, value: number): Uint8Array {
  const changed = bytes(vectors[vector]!.hex);
  new DataView(changed.buffer).setUint32(offset, value, true);
  return changed;
}

describe('messages of the host server', () => {
  it.each(vectors)('$message.type is $hex', ({ message, hex }) => {
    expect(encode(message)).toEqual(bytes(hex));
    expect(decodeServerMessage(bytes(hex))).toEqual(message);
  });

  it.each(vectors)('$message.type: bytes behind the known fields are skipped', ({ message, hex }) => {
    const longer = new Uint8Array([...bytes(hex), 0xde, 0xad, 0xbe, 0xef]);
    new DataView(longer.buffer).setUint32(4, longer.length, true);
    expect(decodeMessageLength(longer)).toBe(longer.length);
    expect(decodeServerMessage(longer)).toEqual(message);
  });

  it.each(vectors)('$message.type: a length its fields do not fit into is refused', ({ hex }) => {
    for (const length of [0, 7, bytes(hex).length - 1, MAX_MESSAGE_SIZE + 1, 0xffffffff]) {
      const changed = bytes(hex);
      new DataView(changed.buffer).setUint32(4, length, true);
      expect(() => decodeMessageLength(changed)).toThrow(ServerProtocolError);
      expect(() => decodeServerMessage(changed)).toThrow(
        ` len ${length}: expected ${bytes(hex).length} to 4096`,
      );
    }
  });

  it.each(vectors)('$message.type: part of it is refused', ({ hex }) => {
    for (let length = 0; length < bytes(hex).length; length++) {
      expect(() => decodeServerMessage(bytes(hex).subarray(0, length))).toThrow(ServerProtocolError);
    }
  });

  it('reads from the middle of a buffer', () => {
    const buffer = new Uint8Array(100);
    buffer.set(bytes(vectors[1]!.hex), 33);
    expect(decodeServerMessage(buffer.subarray(33, 49))).toEqual(vectors[1]!.message);
  });

  it.each([
    [0, 0, 3, 'message type 3: expected 0 to 2'],
    [0, 8, 1, 'version 1: expected 2 to'],
    [0, 12, 1, 'compatible_version 1: only version 2 is supported'],
    [0, 12, 3, 'compatible_version 3: only version 2 is supported'],
    [0, 16, 3, 'id 3: expected 0 to 2'],
    [0, 20, 1, 'max_peers 1: expected 2 to 1024'],
    [0, 20, 1025, 'max_peers 1025'],
    [0, 24, 0, 'vectors 0: expected 1 to 1024'],
    [0, 24, 1025, 'vectors 1025'],
    [0, 28, 0x10000, 'protocol 65536: expected 0 to 65535'],
    [0, 36, 0x200000, 'output_section_size 9007'],
    [1, 8, 1024, 'EVENT_FD with id 1024: expected 0 to 1023'],
    [1, 12, 1024, 'EVENT_FD with vector 1024'],
    [2, 8, 0xffffffff, 'PEER_GONE with id 4294967295'],
  ])('vector %i with %#3$i at %i is refused', (vector, offset, value, text) => {
    expect(() => decodeServerMessage(with32(vector, offset, value))).toThrow(text);
  });

  it('takes a later version that is compatible', () => {
    expect(decodeServerMessage(with32(0, 8, 3))).toMatchObject({ type: 'init', version: 3 });
  });
});
