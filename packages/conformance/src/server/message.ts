// The messages of the host server, decoded from docs/protocol-0x0001.md, section 11, and not by the implementation in this
// repository: the kit must notice a fault that both of its sides share.

export const INIT = 0;
export const EVENT_FD = 1;
export const PEER_GONE = 2;
/** Sizes in bytes. */
export const HEADER_SIZE = 8;
export const LONGEST_MESSAGE = 4096;
export const STATE_TABLE_SIZE = 4096;

/** Fields of INIT, by their offsets in the message. */
export const INIT_FIELDS = {
  version: 8,
  compatibleVersion: 12,
  id: 16,
  maxPeers: 20,
  vectors: 24,
  protocol: 28,
} as const;

/** A message as it arrived. */
export class Message {
  readonly bytes: Uint8Array;
  /** The descriptors that came with it. The client owns them. */
  readonly fds: readonly number[];
  readonly #view: DataView;

  constructor(bytes: Uint8Array, fds: readonly number[]) {
    this.bytes = bytes;
    this.fds = fds;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  /** The u32 at an offset; NaN if the message is too short for it. */
  u32(offset: number): number {
    return offset + 4 <= this.bytes.length ? this.#view.getUint32(offset, true) : Number.NaN;
  }

  get type(): number {
    return this.u32(0);
  }

  get length(): number {
    return this.u32(4);
  }

  /** The peer that an EVENT_FD or PEER_GONE is about. */
  get peer(): number {
    return this.u32(8);
  }

  /** The vector of an EVENT_FD. */
  get vector(): number {
    return this.u32(12);
  }

  /** output_section_size of INIT. */
  get sectionSize(): number {
    return this.u32(32) + this.u32(36) * 2 ** 32;
  }

  toString(): string {
    const count = this.fds.length;
    return `${this.#name()}, ${count === 0 ? 'no descriptor' : count === 1 ? '1 descriptor' : `${count} descriptors`}`;
  }

  #name(): string {
    switch (this.type) {
      case INIT:
        return `INIT for ID ${this.u32(INIT_FIELDS.id)}`;
      case EVENT_FD:
        return `EVENT_FD of peer ${this.peer}, vector ${this.vector}`;
      case PEER_GONE:
        return `PEER_GONE of peer ${this.peer}`;
      default:
        return `a message of type ${this.type}`;
    }
  }
}
