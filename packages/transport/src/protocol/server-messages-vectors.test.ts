import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  decodeServerMessage,
  encodeEventFd,
  encodeInit,
  encodePeerGone,
  type ServerMessage,
  ServerProtocolError,
} from './server-messages.ts';

interface Vectors {
  messages: {
    message: 'INIT' | 'EVENT_FD' | 'PEER_GONE';
    fields: Record<string, number | string>;
    bytes: string;
    sent: boolean;
  }[];
  refused: { bytes: string; why: string }[];
}

const vectors: Vectors = JSON.parse(
  readFileSync(new URL('../../../../docs/vectors/host-server-messages.json', import.meta.url), 'utf8'),
);

function toMessage({ message, fields }: Vectors['messages'][number]): ServerMessage {
  const field = (name: string) => Number(fields[name]);
  if (message === 'PEER_GONE') return { type: 'peer-gone', id: field('id') };
  if (message === 'EVENT_FD') return { type: 'event-fd', id: field('id'), vector: field('vector') };
  return {
    type: 'init',
    version: field('version'),
    id: field('id'),
    maxPeers: field('max_peers'),
    vectors: field('vectors'),
    protocol: field('protocol'),
    outputSectionSize: field('output_section_size'),
  };
}

function encode(message: ServerMessage): Uint8Array {
  if (message.type === 'init') return encodeInit(message);
  if (message.type === 'peer-gone') return encodePeerGone(message.id);
  return encodeEventFd(message.id, message.vector);
}

describe('host server vectors', () => {
  it.each(vectors.messages)('$message $fields is decoded', (vector) => {
    expect(decodeServerMessage(Buffer.from(vector.bytes, 'hex'))).toEqual(toMessage(vector));
  });

  it.each(vectors.messages.filter(({ sent }) => sent))('$message $fields is encoded', (vector) => {
    expect(Buffer.from(encode(toMessage(vector))).toString('hex')).toBe(vector.bytes);
  });

  it.each(vectors.refused)('is refused: $why', ({ bytes }) => {
    expect(() => decodeServerMessage(Buffer.from(bytes, 'hex'))).toThrow(ServerProtocolError);
  });
});
