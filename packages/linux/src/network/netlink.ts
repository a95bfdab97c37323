import { constants } from 'node:os';
import { EAGAIN, EINTR, O_CLOEXEC } from '../constants.ts';
import { check, SystemCallError } from '../errors.ts';
import * as libc from '../libc.ts';
import { OwnedFd } from '../owned-fd.ts';
import { setReceiveTimeout } from '../socket/socket-timeout.ts';
import {
  decodeAttributes,
  decodeMessages,
  encodeMessage,
  type NetlinkMessage,
  textOf,
  u32Of,
} from './netlink-message.ts';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const NETLINK_ROUTE = 0;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const { EPERM, EAFNOSUPPORT, ENOBUFS, ETIMEDOUT } = constants.errno;
const NO_NETLINK =
  'a sandbox forbids netlink: allow it, in a systemd unit with RestrictAddressFamilies=AF_NETLINK';

const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_REQUEST = 1;
const NLM_F_ACK = 4;
const NLM_F_DUMP_INTR = 0x10;
const NLM_F_DUMP = 0x300;
const NLMSGERR_ATTR_MSG = 1;
/** nlmsgerr with NETLINK_CAP_ACK: {i32 error, nlmsghdr of the request}, then attributes. */
const ERROR_ATTRIBUTES_OFFSET = 20;

/** Flags of requests that create an object. If it exists: replace it, or fail with EEXIST. */
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;

/** Multicast group of changes to interfaces, as a bit of sockaddr_nl.groups. */
export const RTMGRP_LINK = 1;

/** Message types of rtnetlink(7). */
export const rtnetlinkTypes = {
  RTM_NEWLINK: 16,
  RTM_DELLINK: 17,
  RTM_GETLINK: 18,
  RTM_NEWADDR: 20,
  RTM_GETADDR: 22,
  RTM_NEWROUTE: 24,
} as const;

export type RtnetlinkCall = keyof typeof rtnetlinkTypes;

// The kernel fills a dump's datagrams up to 32 KiB; a single interface with all its attributes needs less than 8.
const RECEIVE_BUFFER_SIZE = 65536;
const SOCKADDR_SIZE = 12;
const DUMP_ATTEMPTS = 8;
/** Limit of datagrams per call, so that a namespace with constant changes cannot block its reader. */
const EVENTS_AT_ONCE = 64;
// The kernel replies before sendto(2) returns; the timeout is a precaution against blocking a thread forever.
const REPLY_TIMEOUT_MS = 5000;

/** struct sockaddr_nl: {u16 family, u16 0, u32 port (0: the kernel), u32 groups}. */
function socketAddress(groups: number): Uint8Array {
  const address = new Uint8Array(SOCKADDR_SIZE);
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_NETLINK, true);
  view.setUint32(8, groups, true);
  return address;
}

function openSocket(): number {
  const fd = libc.socket(AF_NETLINK, SOCK_RAW | O_CLOEXEC, NETLINK_ROUTE);
  if (fd !== -1) return fd;
  const errno = libc.errno();
  throw new SystemCallError('socket', 'rtnetlink', errno, errno === EAFNOSUPPORT ? NO_NETLINK : undefined);
}

/**
 * An rtnetlink(7) socket in the network namespace of the thread that creates it. Requests are synchronous: when they return,
 * the kernel has completed or rejected them.
 */
export class RtnetlinkSocket extends OwnedFd {
  readonly #buffer = new Uint8Array(RECEIVE_BUFFER_SIZE);
  readonly #sender = new Uint8Array(SOCKADDR_SIZE);
  readonly #senderLength = new Uint8Array(4);
  #sequence = 0;

  /** `groups`: multicast groups to receive from, see {@link receiveEvents}. Throws {@link SystemCallError}. */
  constructor(groups = 0) {
    super(openSocket());
    try {
      const on = Uint8Array.of(1, 0, 0, 0);
      // Errors with the kernel's explanation, and without a copy of the request.
      check(libc.setsockopt(this.fd, SOL_NETLINK, NETLINK_EXT_ACK, on, 4), 'setsockopt', 'NETLINK_EXT_ACK');
      check(libc.setsockopt(this.fd, SOL_NETLINK, NETLINK_CAP_ACK, on, 4), 'setsockopt', 'NETLINK_CAP_ACK');
      setReceiveTimeout(this.fd, REPLY_TIMEOUT_MS);
      check(libc.bind(this.fd, socketAddress(groups), SOCKADDR_SIZE), 'bind', 'rtnetlink');
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /**
   * Sends the request `call` and waits for the acknowledgement. Returns the messages before it (one for a get). Throws
   * {@link SystemCallError} with the kernel's explanation: `RTM_NEWLINK interface ivn0: EEXIST: …`.
   */
  request(call: RtnetlinkCall, subject: string, flags: number, ...parts: Uint8Array[]): NetlinkMessage[] {
    return this.#exchange(call, subject, NLM_F_REQUEST | NLM_F_ACK | flags, parts).messages;
  }

  /** Requests all objects of a kind. Throws {@link SystemCallError}. */
  dump(call: RtnetlinkCall, subject: string, ...parts: Uint8Array[]): NetlinkMessage[] {
    for (let attempt = 1; ; attempt++) {
      const { messages, interrupted } = this.#exchange(call, subject, NLM_F_REQUEST | NLM_F_DUMP, parts);
      // NLM_F_DUMP_INTR: something changed during the dump, so objects may be missing or repeated.
      if (!interrupted || attempt === DUMP_ATTEMPTS) return messages;
    }
  }

  /** Waits up to `timeoutMs` for messages of the joined groups. Returns false if none arrived. */
  receiveEvents(timeoutMs: number): boolean {
    setReceiveTimeout(this.fd, timeoutMs);
    return libc.recvfrom(this.fd, this.#buffer, this.#buffer.length, MSG_TRUNC, null, null) > 0;
  }

  /**
   * Reads pending messages of the joined groups, at most {@link EVENTS_AT_ONCE} datagrams, without blocking. Returns null if
   * the kernel has dropped some. Throws {@link SystemCallError}.
   */
  takeEvents(): NetlinkMessage[] | null {
    const messages: NetlinkMessage[] = [];
    const buffer = this.#buffer;
    for (let i = 0; i < EVENTS_AT_ONCE; i++) {
      const length = libc.recvfrom(this.fd, buffer, buffer.length, MSG_DONTWAIT, null, null);
      if (length === -1) {
        const errno = libc.errno();
        if (errno === EAGAIN) break;
        if (errno === EINTR) continue;
        if (errno === ENOBUFS) return null;
        throw new SystemCallError('recvfrom', 'rtnetlink', errno);
      }
      messages.push(...decodeMessages(buffer.slice(0, length)));
    }
    return messages;
  }

  #exchange(call: RtnetlinkCall, subject: string, flags: number, parts: Uint8Array[]) {
    const sequence = ++this.#sequence;
    const request = encodeMessage(rtnetlinkTypes[call], flags, sequence, ...parts);
    check(libc.sendto(this.fd, request, request.length, 0, socketAddress(0), SOCKADDR_SIZE), call, subject);
    const messages: NetlinkMessage[] = [];
    let interrupted = false;
    for (;;) {
      for (const message of this.#receive(call, subject)) {
        if (message.sequence !== sequence) continue;
        if ((message.flags & NLM_F_DUMP_INTR) !== 0) interrupted = true;
        if (message.type !== NLMSG_ERROR && message.type !== NLMSG_DONE) {
          messages.push(message);
          continue;
        }
        const error = -((u32Of(message.payload) ?? 0) | 0);
        if (error > 0) throw refusal(call, subject, error, message.payload);
        return { messages, interrupted };
      }
    }
  }

  /** Receives one datagram from the kernel; other processes with CAP_NET_ADMIN could send datagrams, too. */
  #receive(call: RtnetlinkCall, subject: string): NetlinkMessage[] {
    new DataView(this.#senderLength.buffer).setUint32(0, SOCKADDR_SIZE, true);
    const buffer = this.#buffer;
    const length = libc.recvfrom(this.fd, buffer, buffer.length, MSG_TRUNC, this.#sender, this.#senderLength);
    if (length === -1) {
      const errno = libc.errno();
      if (errno === EINTR) return [];
      throw new SystemCallError(call, subject, errno === EAGAIN ? ETIMEDOUT : errno);
    }
    if (length > buffer.length) throw new Error(`${call} ${subject}: reply of ${length} bytes is too long`);
    if (u32Of(this.#sender.subarray(4)) !== 0) return [];
    // A copy: the messages outlive the buffer's next use.
    return decodeMessages(buffer.slice(0, length));
  }
}

function refusal(call: string, subject: string, errno: number, payload: Uint8Array): SystemCallError {
  const explanation = decodeAttributes(payload.subarray(ERROR_ATTRIBUTES_OFFSET)).get(NLMSGERR_ATTR_MSG);
  const remedy = explanation && textOf(explanation);
  const privilege = 'needs CAP_NET_ADMIN in this network namespace';
  return new SystemCallError(call, subject, errno, errno === EPERM ? privilege : remedy);
}

/** A single {@link RtnetlinkSocket.request} on a new socket. */
export function rtnetlinkRequest(
  call: RtnetlinkCall,
  subject: string,
  flags: number,
  ...parts: Uint8Array[]
): NetlinkMessage[] {
  using socket = new RtnetlinkSocket();
  return socket.request(call, subject, flags, ...parts);
}
