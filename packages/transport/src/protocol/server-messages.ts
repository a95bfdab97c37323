import { MAX_SERVER_PEERS } from './memory-layout.ts';

/**
 * Messages of the host server, as bytes. All integers are little-endian; each message begins with {u32 type, u32 len},
 * where len counts the whole message. Later versions may append fields: what lies behind those known here is skipped.
 * Source: "include/hw/misc/ivshmem2.h" and the server of the patch series that introduced ivshmem v2.
 *
 * | message   | type | bytes | fields behind the header                                                 |
 * |-----------|------|-------|--------------------------------------------------------------------------|
 * | INIT      | 0    | 40    | u32 version, u32 compatible_version, u32 id, u32 max_peers, u32 vectors, |
 * |           |      |       | u32 protocol, u64 output_section_size; carries the shared memory's fd     |
 * | EVENT_FD  | 1    | 16    | u32 id, u32 vector; carries the eventfd                                  |
 * | PEER_GONE | 2    | 12    | u32 id                                                                   |
 */
const INIT = 0;
const EVENT_FD = 1;
const PEER_GONE = 2;

/** Size of the header that each message begins with, in bytes. */
export const MESSAGE_HEADER_SIZE = 8;
/** The longest message that is accepted, in bytes; the longest one known has 40. */
export const MAX_MESSAGE_SIZE = 4096;
/** Version of the server's protocol, and the oldest one it is compatible with. */
export const SERVER_PROTOCOL_VERSION = 2;
/** The largest number of vectors that other clients support. */
export const MAX_VECTORS = 1024;

const INIT_SIZE = 40;
const EVENT_FD_SIZE = 16;
const PEER_GONE_SIZE = 12;

/** The first message: who the client is, and what it shares. */
export interface InitMessage {
  readonly type: 'init';
  /** The server's version, ≥ {@link SERVER_PROTOCOL_VERSION}. */
  readonly version: number;
  /** The client's ID, 0 … maxPeers - 1. */
  readonly id: number;
  /** 2 … {@link MAX_SERVER_PEERS}. */
  readonly maxPeers: number;
  /** Interrupt vectors of each peer, 1 … {@link MAX_VECTORS}. */
  readonly vectors: number;
  /** Protocol type, 16 bits. */
  readonly protocol: number;
  /** Size of each output section in bytes. */
  readonly outputSectionSize: number;
}

/** The eventfd of one vector of a peer, the client itself included. */
export interface EventFdMessage {
  readonly type: 'event-fd';
  /** 0 … {@link MAX_SERVER_PEERS} - 1. */
  readonly id: number;
  /** 0 … {@link MAX_VECTORS} - 1. */
  readonly vector: number;
}

/** A peer has disconnected. */
export interface PeerGoneMessage {
  readonly type: 'peer-gone';
  /** 0 … {@link MAX_SERVER_PEERS} - 1. */
  readonly id: number;
}

export type ServerMessage = InitMessage | EventFdMessage | PeerGoneMessage;

/** The server sent something that is no message of its protocol. The text names the field and its value. */
export class ServerProtocolError extends Error {
  override readonly name = 'ServerProtocolError';
}

function message(type: number, size: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, size, true);
  return { bytes, view };
}

/** INIT, 40 bytes. The fields must be in their ranges: nothing is checked here. */
export function encodeInit(fields: Omit<InitMessage, 'type' | 'version'>): Uint8Array {
  const { bytes, view } = message(INIT, INIT_SIZE);
  view.setUint32(8, SERVER_PROTOCOL_VERSION, true);
  view.setUint32(12, SERVER_PROTOCOL_VERSION, true);
  view.setUint32(16, fields.id, true);
  view.setUint32(20, fields.maxPeers, true);
  view.setUint32(24, fields.vectors, true);
  view.setUint32(28, fields.protocol, true);
  view.setBigUint64(32, BigInt(fields.outputSectionSize), true);
  return bytes;
}

/** EVENT_FD, 16 bytes. */
export function encodeEventFd(id: number, vector: number): Uint8Array {
  const { bytes, view } = message(EVENT_FD, EVENT_FD_SIZE);
  view.setUint32(8, id, true);
  view.setUint32(12, vector, true);
  return bytes;
}

/** PEER_GONE, 12 bytes. */
export function encodePeerGone(id: number): Uint8Array {
  const { bytes, view } = message(PEER_GONE, PEER_GONE_SIZE);
  view.setUint32(8, id, true);
  return bytes;
}

function checked(what: string, value: number, minimum: number, maximum: number): number {
  if (value >= minimum && value <= maximum) return value;
  throw new ServerProtocolError(`server sent ${what} ${value}: expected ${minimum} to ${maximum}`);
}

/**
 * The length of the message, in bytes, that begins with this header ({@link MESSAGE_HEADER_SIZE} bytes). Throws
 * {@link ServerProtocolError} for a type that is unknown, and for a length that its fields do not fit into or that is
 * above {@link MAX_MESSAGE_SIZE}.
 */
export function decodeMessageLength(header: Uint8Array): number {
  const view = new DataView(header.buffer, header.byteOffset, MESSAGE_HEADER_SIZE);
  const type = view.getUint32(0, true);
  const length = view.getUint32(4, true);
  switch (type) {
    case INIT:
      return checked('INIT with len', length, INIT_SIZE, MAX_MESSAGE_SIZE);
    case EVENT_FD:
      return checked('EVENT_FD with len', length, EVENT_FD_SIZE, MAX_MESSAGE_SIZE);
    case PEER_GONE:
      return checked('PEER_GONE with len', length, PEER_GONE_SIZE, MAX_MESSAGE_SIZE);
    default:
      throw new ServerProtocolError(`server sent message type ${type}: expected 0 to 2`);
  }
}

/**
 * Decodes one whole message, header and body. Throws {@link ServerProtocolError} if it is shorter than the length in its
 * header, if {@link decodeMessageLength} rejects it, and for fields out of their ranges.
 */
export function decodeServerMessage(bytes: Uint8Array): ServerMessage {
  if (bytes.length < MESSAGE_HEADER_SIZE || bytes.length < decodeMessageLength(bytes)) {
    throw new ServerProtocolError(`server sent ${bytes.length} bytes of a longer message`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const u32 = (offset: number) => view.getUint32(offset, true);
  switch (u32(0)) {
    case INIT: {
      const compatible = u32(12);
      if (compatible !== SERVER_PROTOCOL_VERSION) {
        const remedy = `only version ${SERVER_PROTOCOL_VERSION} is supported: use another server`;
        throw new ServerProtocolError(`server sent compatible_version ${compatible}: ${remedy}`);
      }
      const version = checked('version', u32(8), SERVER_PROTOCOL_VERSION, 0xffffffff);
      const maxPeers = checked('max_peers', u32(20), 2, MAX_SERVER_PEERS);
      const outputSectionSize = Number(view.getBigUint64(32, true));
      return {
        type: 'init',
        version,
        id: checked('id', u32(16), 0, maxPeers - 1),
        maxPeers,
        vectors: checked('vectors', u32(24), 1, MAX_VECTORS),
        protocol: checked('protocol', u32(28), 0, 0xffff),
        outputSectionSize: checked('output_section_size', outputSectionSize, 0, Number.MAX_SAFE_INTEGER),
      };
    }
    case EVENT_FD:
      return {
        type: 'event-fd',
        id: checked('EVENT_FD with id', u32(8), 0, MAX_SERVER_PEERS - 1),
        vector: checked('EVENT_FD with vector', u32(12), 0, MAX_VECTORS - 1),
      };
    default:
      return { type: 'peer-gone', id: checked('PEER_GONE with id', u32(8), 0, MAX_SERVER_PEERS - 1) };
  }
}
