import { constants } from 'node:os';
import { EAGAIN, EINTR, O_CLOEXEC } from '../constants.ts';
import { check, SystemCallError } from '../errors.ts';
import { closeFd } from '../fd.ts';
import * as libc from '../libc.ts';
import { type Mapping, mapPrivate } from '../memory/memory.ts';
import { OwnedFd } from '../owned-fd.ts';
import { MessageHeader } from '../socket/message-header.ts';
import { setReceiveTimeout } from '../socket/socket-timeout.ts';
import { linkIndex } from './interface.ts';

const AF_PACKET = 17;
const SOCK_RAW = 3;
const ETH_P_ALL = 3;
const SOL_PACKET = 263;
const PACKET_ADD_MEMBERSHIP = 1;
const PACKET_STATISTICS = 6;
const PACKET_AUXDATA = 8;
const PACKET_IGNORE_OUTGOING = 23;
const PACKET_MR_PROMISC = 1;
const TP_STATUS_VLAN_VALID = 1 << 4;
const MSG_TRUNC = 0x20;
const { ENETDOWN } = constants.errno;

// The header, then room for a cmsghdr of 16 bytes with a struct tpacket_auxdata of 20, then the frame.
const CONTROL_OFFSET = MessageHeader.SIZE;
const CONTROL_SIZE = 40;
const AUXDATA_OFFSET = CONTROL_OFFSET + 16;
const FRAME_OFFSET = 128;
/** An IP packet of 65535 bytes, Ethernet header and two VLAN tags are less. */
const MAX_FRAME_SIZE = 65536 + 128;
const VLAN_TAG_SIZE = 4;
const VLAN_TAG_AT = 12;

/**
 * Sends and receives whole Ethernet frames on one interface, see packet(7). Receives all incoming frames, whatever their
 * destination, and no outgoing ones. `fd` is blocking and close-on-exec, and readable when a frame is pending.
 */
export class PacketSocket extends OwnedFd {
  readonly interfaceName: string;
  readonly #memory: Mapping = mapPrivate(FRAME_OFFSET + MAX_FRAME_SIZE);
  readonly #header = new MessageHeader(this.#memory, { data: FRAME_OFFSET, control: CONTROL_OFFSET });
  readonly #view = new DataView(this.#memory.buffer);

  /** See {@link openPacketSocket}. */
  constructor(fd: number, interfaceName: string) {
    super(fd);
    this.interfaceName = interfaceName;
  }

  /** Sends a frame, from the destination address on, without the frame check sequence. Throws {@link SystemCallError}. */
  send(frame: Uint8Array): void {
    const sent = libc.sendto(this.fd, frame, frame.length, 0, null, 0);
    check(sent, 'send', `a frame of ${frame.length} bytes on interface ${this.interfaceName}`);
  }

  /**
   * Receives the next frame, or null after `timeoutMs`. Blocks the thread. VLAN tags, which the kernel removes, are restored.
   * Throws {@link SystemCallError}.
   */
  receive(timeoutMs: number): Uint8Array | null {
    const deadline = performance.now() + timeoutMs;
    for (let left = timeoutMs; left > 0 || timeoutMs === 0; left = deadline - performance.now()) {
      setReceiveTimeout(this.fd, left);
      this.#header.prepare(MAX_FRAME_SIZE, CONTROL_SIZE);
      const length = libc.recvmsg(this.fd, this.#header.address, MSG_TRUNC);
      if (length > MAX_FRAME_SIZE)
        throw new Error(`interface ${this.interfaceName}: frame of ${length} bytes`);
      if (length >= 0) return this.#frame(length);
      const errno = libc.errno();
      // Reported once when the interface goes down; it may come up again.
      if (errno !== EAGAIN && errno !== EINTR && errno !== ENETDOWN) {
        throw new SystemCallError('recvmsg', `interface ${this.interfaceName}`, errno);
      }
      if (timeoutMs === 0) return null;
    }
    return null;
  }

  #frame(length: number): Uint8Array {
    const received = new Uint8Array(this.#memory.buffer, FRAME_OFFSET, length);
    const hasAuxdata = this.#header.controlLength > 0;
    // struct tpacket_auxdata: {u32 status, u32 len, u32 snaplen, u16 mac, u16 net, u16 vlan_tci, u16 vlan_tpid}.
    if (!hasAuxdata || (this.#view.getUint32(AUXDATA_OFFSET, true) & TP_STATUS_VLAN_VALID) === 0) {
      return received.slice();
    }
    const frame = new Uint8Array(length + VLAN_TAG_SIZE);
    frame.set(received.subarray(0, VLAN_TAG_AT));
    frame.set(received.subarray(VLAN_TAG_AT), VLAN_TAG_AT + VLAN_TAG_SIZE);
    const tag = new DataView(frame.buffer, VLAN_TAG_AT);
    tag.setUint16(0, this.#view.getUint16(AUXDATA_OFFSET + 18, true));
    tag.setUint16(2, this.#view.getUint16(AUXDATA_OFFSET + 16, true));
    return frame;
  }

  /** Frames dropped since the last call because the socket's buffer was full. Throws {@link SystemCallError}. */
  takeDrops(): number {
    // struct tpacket_stats: {u32 packets, u32 drops}; the kernel clears both.
    const statistics = new Uint32Array(2);
    const bytes = new Uint8Array(statistics.buffer);
    const length = new Uint8Array(Uint32Array.of(bytes.length).buffer);
    const result = libc.getsockopt(this.fd, SOL_PACKET, PACKET_STATISTICS, bytes, length);
    check(result, 'getsockopt PACKET_STATISTICS', `interface ${this.interfaceName}`);
    return statistics[1]!;
  }

  protected override release(): void {
    this.#memory.close();
  }
}

/** struct sockaddr_ll: {u16 family, u16 protocol (network order), i32 index, …}. */
function linkLayerAddress(index: number): Uint8Array {
  const address = new Uint8Array(20);
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setUint16(2, ETH_P_ALL);
  view.setInt32(4, index, true);
  return address;
}

/**
 * Opens an interface of the calling thread's network namespace for whole frames, promiscuous. Throws
 * {@link SystemCallError} (EPERM without CAP_NET_RAW, ENODEV, ENETDOWN while the interface is down).
 */
export function openPacketSocket(interfaceName: string): PacketSocket {
  const index = linkIndex(interfaceName);
  const subject = `interface ${interfaceName}`;
  // Protocol 0: nothing is received before the socket is bound to its one interface.
  const fd = check(libc.socket(AF_PACKET, SOCK_RAW | O_CLOEXEC, 0), 'socket AF_PACKET', subject);
  try {
    const on = Uint8Array.of(1, 0, 0, 0);
    const option = (number: number, name: string, value: Uint8Array) =>
      check(libc.setsockopt(fd, SOL_PACKET, number, value, value.length), `setsockopt ${name}`, subject);
    option(PACKET_IGNORE_OUTGOING, 'PACKET_IGNORE_OUTGOING', on);
    option(PACKET_AUXDATA, 'PACKET_AUXDATA', on);
    // struct packet_mreq: {i32 index, u16 type, u16 address length, u8 address[8]}.
    const membership = new Uint8Array(16);
    new DataView(membership.buffer).setInt32(0, index, true);
    membership[4] = PACKET_MR_PROMISC;
    option(PACKET_ADD_MEMBERSHIP, 'PACKET_ADD_MEMBERSHIP', membership);
    check(libc.bind(fd, linkLayerAddress(index), 20), 'bind', subject);
    return new PacketSocket(fd, interfaceName);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}
