import { EAGAIN } from '../constants.ts';
import { SystemCallError } from '../errors.ts';
import * as libc from '../libc.ts';
import type { Mapping } from '../memory/memory.ts';

/** The system calls themselves: in musl, sendmmsg is a loop in user space, between whose steps a process can be killed. */
const [RECVMMSG, SENDMMSG] = process.arch === 'x64' ? [299, 307] : [243, 269];
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const CMSGHDR_SIZE = 16;

/** Size of the control message of `count` descriptors, in bytes. Source: cmsg(3), CMSG_SPACE. */
export function controlSize(count: number): number {
  return (CMSGHDR_SIZE + 4 * count + 7) & ~7;
}

/** A range of mapped memory. */
export interface MessagePart {
  /** Its address in this process. */
  readonly address: number;
  /** In bytes. */
  readonly length: number;
}

/** A u64 whose lower half is 0, to be stored as one value; see {@link MessageRecord.begin}. */
const note = new Uint32Array(2);
const noteAsDouble = new Float64Array(note.buffer);

/**
 * A send or receive whose outcome the kernel records in memory of the caller's choice. sendmmsg(2) and recvmmsg(2) store the
 * number of bytes within the system call, and SIGKILL takes effect when the call returns to user space. So in a file that
 * outlives the process, {@link length} is what the call has done, without a window.
 *
 * That is true if the page is present when the call ends: {@link send} and {@link receive} write to it first.
 */
export class MessageRecord {
  /** In bytes: struct mmsghdr {msghdr of 56 bytes, u32 length, u32 padding} and struct iovec {u64 address, u64 length}. */
  static readonly SIZE = 80;
  readonly #address: number;
  readonly #words: BigUint64Array;
  readonly #integers: Uint32Array;
  readonly #doubles: Float64Array;

  /**
   * Uses {@link SIZE} bytes of `memory` from `offset` (a multiple of 8) on. Only `length` and `note` are kept from before: the
   * addresses in there are those of another process.
   */
  constructor(memory: Mapping, offset: number) {
    this.#address = memory.address + offset;
    this.#words = new BigUint64Array(memory.buffer, offset, MessageRecord.SIZE / 8);
    this.#integers = new Uint32Array(memory.buffer, offset, MessageRecord.SIZE / 4);
    this.#doubles = new Float64Array(memory.buffer, offset, MessageRecord.SIZE / 8);
  }

  /** Bytes that the last call has sent or received; 0 after {@link reset}, a failed call, or one with nothing to do. */
  get length(): number {
    return this.#integers[14]!;
  }

  reset(): void {
    this.#integers[14] = 0;
  }

  /** What {@link begin} has set, 0 at first. It is in the padding of struct mmsghdr, which the kernel does not touch. */
  get note(): number {
    return this.#integers[15]!;
  }

  /**
   * Sets {@link note} to a number below 2^30 and {@link length} to 0, in one store: a process that is killed has done both or
   * neither.
   */
  begin(value: number): void {
    note[1] = value;
    // A double with such an upper half is no NaN, whose bits might be changed on the way.
    this.#doubles[7] = noteAsDouble[0]!;
  }

  /** After {@link receive}, the flags that the kernel has set, such as MSG_CTRUNC. */
  get flags(): number {
    return this.#integers[12]!;
  }

  /** After {@link receive}, the bytes of control messages. */
  get controlLength(): number {
    return Number(this.#words[5]);
  }

  /**
   * Sends `data` (not empty), with the control message in `control` if given, see {@link writeRights}. Never blocks. Returns
   * the number of bytes sent, or 0 if the socket buffer is full, and records it. Throws {@link SystemCallError}.
   */
  send(fd: number, data: MessagePart, control?: MessagePart): number {
    this.#prepare(data, control);
    const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    if (libc.syscall5(SENDMMSG!, fd, this.#address, 1, flags, 0) === 1) return this.length;
    const errno = libc.errno();
    if (errno === EAGAIN) return 0;
    throw new SystemCallError('sendmmsg', `fd ${fd}`, errno);
  }

  /**
   * Receives into `data`, and control messages into `control` if given; descriptors are close-on-exec. Without `control`, the
   * kernel closes them. Never blocks. Returns the number of bytes, 0 at the end of the stream, -1 if nothing is pending, and
   * records it (0 if -1). Throws {@link SystemCallError}.
   */
  receive(fd: number, data: MessagePart, control?: MessagePart): number {
    this.#prepare(data, control);
    const flags = MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
    if (libc.syscall5(RECVMMSG!, fd, this.#address, 1, flags, 0) === 1) return this.length;
    const errno = libc.errno();
    if (errno === EAGAIN) return -1;
    throw new SystemCallError('recvmmsg', `fd ${fd}`, errno);
  }

  #prepare(data: MessagePart, control: MessagePart | undefined): void {
    const words = this.#words;
    this.reset();
    words[0] = 0n;
    words[1] = 0n;
    words[2] = BigInt(this.#address + 64);
    words[3] = 1n;
    words[4] = BigInt(control?.address ?? 0);
    words[5] = BigInt(control?.length ?? 0);
    this.#integers[12] = 0;
    words[8] = BigInt(data.address);
    words[9] = BigInt(data.length);
  }
}

/**
 * Writes the control message that passes `fds` at `offset` (a multiple of 8) of `memory`, which needs {@link controlSize} bytes
 * there.
 */
export function writeRights(memory: Mapping, offset: number, fds: readonly number[]): MessagePart {
  const length = CMSGHDR_SIZE + 4 * fds.length;
  new BigUint64Array(memory.buffer, offset, 1)[0] = BigInt(length);
  new Int32Array(memory.buffer, offset + 8, 2 + fds.length).set([SOL_SOCKET, SCM_RIGHTS, ...fds]);
  return { address: memory.address + offset, length: controlSize(fds.length) };
}
