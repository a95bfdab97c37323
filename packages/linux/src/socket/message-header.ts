import type { Mapping } from '../memory/memory.ts';

/**
 * struct msghdr {name, u32 namelen, iov, iovlen, control, controllen, i32 flags} of 64-bit Linux with the one struct
 * iovec {base, len} that it points to, for sendmsg(2) and recvmsg(2).
 */
export class MessageHeader {
  /** In bytes. */
  static readonly SIZE = 72;
  /** Its address, for the system call. */
  readonly address: number;
  readonly #words: BigUint64Array;
  readonly #integers: Int32Array;
  readonly #control: bigint;

  /**
   * Creates a header in the first {@link SIZE} bytes of `memory`. Data and control messages (cmsg(3)) are in the same
   * memory at these offsets in bytes; `control` is a multiple of 8.
   */
  constructor(memory: Mapping, { data, control }: { readonly data: number; readonly control: number }) {
    const iovec = 56;
    this.address = memory.address;
    this.#words = new BigUint64Array(memory.buffer, 0, MessageHeader.SIZE / 8);
    this.#integers = new Int32Array(memory.buffer, 0, MessageHeader.SIZE / 4);
    this.#control = BigInt(memory.address + control);
    this.#words[2] = BigInt(memory.address + iovec);
    this.#words[3] = 1n;
    this.#words[iovec / 8] = BigInt(memory.address + data);
  }

  /** Sets the lengths of data and control messages (0: none) to send, or of the buffers to receive them, in bytes. */
  prepare(dataLength: number, controlLength: number): void {
    this.#words[8] = BigInt(dataLength);
    this.#words[4] = controlLength === 0 ? 0n : this.#control;
    this.#words[5] = BigInt(controlLength);
    this.#integers[12] = 0;
  }

  /** Bytes of control messages that recvmsg(2) has received. */
  get controlLength(): number {
    return Number(this.#words[5]);
  }

  /** The flags that recvmsg(2) has set, such as MSG_CTRUNC. */
  get flags(): number {
    return this.#integers[12]!;
  }
}
