import { randomInt } from 'node:crypto';
import { recv, send } from '@ivshmem/linux';
import { type Mapping, mapPrivate } from '@ivshmem/linux/memory';
import {
  AF_INET,
  AF_INET6,
  type IpSocket,
  MSG_NOSIGNAL,
  openIpSocket,
  parseIpAddress,
} from '@ivshmem/linux/network';
import { setReceiveTimeout } from '@ivshmem/linux/socket';
import { type Control, SLICE_MS } from '../control.ts';
import { NumberedPayload } from '../numbered-payload.ts';
import { internetChecksum } from './checksum.ts';
import { CORRUPTED, type EchoSocket, exchangeEchoes, NOTHING } from './echo.ts';
import { datagramErrno } from './network-errors.ts';
import type { EchoResult, PingTask } from './tasks.ts';

// RFC 792 and RFC 4443: {u8 type, u8 code, u16 checksum, u16 identifier, u16 sequence number}, in network order.
const ICMP_HEADER_SIZE = 8;
const ECHO_REPLY = 0;
const ECHO_REQUEST = 8;
const ECHO_REQUEST_V6 = 128;
const ECHO_REPLY_V6 = 129;

const SOL_RAW = 255;
const ICMP_FILTER = 1;

const REQUEST_AT = 0;
const ANSWER_AT = 65536;
const ANSWER_CAPACITY = 65536;

class IcmpEcho implements EchoSocket {
  sentAt = 0;
  arrivedAt = 0;
  readonly #socket: IpSocket;
  readonly #to: string;
  readonly #v6: boolean;
  readonly #payload: NumberedPayload;
  readonly #memory: Mapping = mapPrivate(ANSWER_AT + ANSWER_CAPACITY);
  readonly #bytes = Buffer.from(this.#memory.buffer);
  readonly #identifier = randomInt(1, 0x10000);

  constructor(socket: IpSocket, to: string, size: number) {
    this.#socket = socket;
    this.#to = to;
    this.#v6 = socket.family === AF_INET6;
    this.#payload = new NumberedPayload(size, randomInt(2 ** 32));
  }

  send(sequence: number): void {
    const bytes = this.#bytes;
    const length = ICMP_HEADER_SIZE + this.#payload.size;
    bytes[REQUEST_AT] = this.#v6 ? ECHO_REQUEST_V6 : ECHO_REQUEST;
    bytes.writeUInt16BE(0, REQUEST_AT + 2);
    bytes.writeUInt16BE(this.#identifier, REQUEST_AT + 4);
    bytes.writeUInt16BE(sequence & 0xffff, REQUEST_AT + 6);
    this.#payload.write(bytes, REQUEST_AT + ICMP_HEADER_SIZE, sequence);
    // The checksum of ICMPv6 also covers the addresses; the kernel computes it.
    if (!this.#v6) bytes.writeUInt16BE(internetChecksum(bytes, REQUEST_AT, length), REQUEST_AT + 2);
    this.sentAt = performance.now();
    if (send(this.#socket.fd, this.#memory.address + REQUEST_AT, length, MSG_NOSIGNAL) === -1) {
      datagramErrno('send', this.#to);
    }
  }

  receive(): number {
    const length = recv(this.#socket.fd, this.#memory.address + ANSWER_AT, ANSWER_CAPACITY, 0);
    this.arrivedAt = performance.now();
    if (length === -1) {
      datagramErrno('recv', this.#to);
      return NOTHING;
    }
    const bytes = this.#bytes;
    // A raw IPv4 socket receives the IP header, a raw IPv6 socket does not.
    const at = this.#v6 ? ANSWER_AT : ANSWER_AT + (bytes[ANSWER_AT]! & 15) * 4;
    const payloadLength = ANSWER_AT + length - at - ICMP_HEADER_SIZE;
    if (payloadLength < 0 || bytes[at] !== (this.#v6 ? ECHO_REPLY_V6 : ECHO_REPLY)) return NOTHING;
    // A reply to another process.
    if (bytes.readUInt16BE(at + 4) !== this.#identifier) return NOTHING;
    const sequence = this.#payload.read(bytes, at + ICMP_HEADER_SIZE, payloadLength, true);
    return sequence === -1 || (sequence & 0xffff) !== bytes.readUInt16BE(at + 6) ? CORRUPTED : sequence;
  }

  setTimeout(milliseconds: number): void {
    setReceiveTimeout(this.#socket.fd, milliseconds);
  }

  close(): void {
    this.#payload.close();
    this.#memory.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

export function ping(task: PingTask, control: Control): EchoResult {
  using socket = openIpSocket(parseIpAddress(task.to).family, 'icmp', SLICE_MS);
  // Receive echo replies only. (ICMPv6 sockets have another kind of filter; see receive().)
  if (socket.family === AF_INET) socket.setOption(SOL_RAW, ICMP_FILTER, ~(1 << ECHO_REPLY));
  socket.connect(task.to, 0);
  using echo = new IcmpEcho(socket, task.to, task.size);
  return exchangeEchoes(echo, task, control);
}
