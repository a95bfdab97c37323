import { constants } from 'node:os';
import { SystemCallError } from '../errors.ts';
import { NLM_F_CREATE, NLM_F_EXCL, RTMGRP_LINK, RtnetlinkSocket, rtnetlinkRequest } from './netlink.ts';
import {
  attribute,
  decodeAttributes,
  type NetlinkMessage,
  textOf,
  u32,
  u32Of,
  zeroTerminated,
} from './netlink-message.ts';

// linux/if_link.h
const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_MASTER = 10;
const IFLA_OPERSTATE = 16;
const IFLA_LINKINFO = 18;
const IFLA_NET_NS_FD = 28;
const IFLA_CARRIER = 33;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const IFLA_TUN_PI = 4;
const IFLA_TUN_NUM_QUEUES = 8;
const VETH_INFO_PEER = 1;
const RTM_NEWLINK = 16;

const IFF_UP = 1;
const MAXIMUM_NAME_BYTES = 15;

const { ENODEV, EOPNOTSUPP } = constants.errno;

/** RFC 2863 states, by their number in IFLA_OPERSTATE. */
const operStates = ['unknown', 'notpresent', 'down', 'lowerlayerdown', 'testing', 'dormant', 'up'] as const;

/** A network interface as rtnetlink(7) describes it. */
export interface NetworkInterface {
  readonly name: string;
  /** > 0, unique in its network namespace. */
  readonly index: number;
  /** Bytes of a packet, Ethernet header not included. */
  readonly mtu: number;
  /** `02:00:00:00:00:01`; empty if it has none. */
  readonly mac: string;
  /** Administratively up. */
  readonly up: boolean;
  /** The physical link is up (IFLA_CARRIER), which the kernel also reports while the interface is down. */
  readonly carrier: boolean;
  readonly operState: (typeof operStates)[number];
  /** The bridge (or other master) it is a port of. */
  readonly master: string | null;
  /** `tun` (TAPs included), `veth`, `bridge`, …; null for `lo` and hardware. */
  readonly kind: string | null;
  /** Number of queues attached to a multi-queue TAP; null for all other interfaces. */
  readonly queues: number | null;
  /** A TUN or TAP without IFF_NO_PI: four bytes of packet information stand before each packet. */
  readonly packetInformation: boolean;
}

/**
 * Checks the name of an interface: 1 to 15 bytes, no whitespace, none of `/ : %`, neither `.` nor `..`.
 * Throws RangeError.
 */
export function checkInterfaceName(name: string): void {
  const refuse = (why: string) => {
    throw new RangeError(`interface name "${name}": ${why}`);
  };
  const bytes = Buffer.byteLength(name);
  if (bytes === 0) refuse('must not be empty');
  if (bytes > MAXIMUM_NAME_BYTES) refuse(`has ${bytes} bytes, but may have ${MAXIMUM_NAME_BYTES} at most`);
  if (name === '.' || name === '..') refuse('is reserved');
  // The kernel replaces %d by a free number.
  if (/[\s/:%\0]/.test(name)) refuse('must not have whitespace or any of / : %');
}

/** struct ifinfomsg: {u8 family, u8 0, u16 type, i32 index, u32 flags, u32 mask of the flags to change}. */
function ifinfomsg(index = 0, flags = 0, change = 0): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setInt32(4, index, true);
  view.setUint32(8, flags, true);
  view.setUint32(12, change, true);
  return bytes;
}

const nameAttribute = (name: string) => attribute(IFLA_IFNAME, zeroTerminated(name));
const kindAttribute = (kind: string) => attribute(IFLA_INFO_KIND, zeroTerminated(kind));

/** `masterName` resolves an interface's index. */
function describe(message: NetlinkMessage, masterName: (index: number) => string | null): NetworkInterface {
  const { payload } = message;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const attributes = decodeAttributes(payload.subarray(16));
  const master = u32Of(attributes.get(IFLA_MASTER));
  const linkInfo = decodeAttributes(attributes.get(IFLA_LINKINFO) ?? new Uint8Array());
  const kind = linkInfo.get(IFLA_INFO_KIND);
  const data = decodeAttributes(linkInfo.get(IFLA_INFO_DATA) ?? new Uint8Array());
  const mac = attributes.get(IFLA_ADDRESS) ?? new Uint8Array();
  return {
    name: textOf(attributes.get(IFLA_IFNAME) ?? new Uint8Array()),
    index: view.getInt32(4, true),
    mtu: u32Of(attributes.get(IFLA_MTU)) ?? 0,
    mac: Array.from(mac, (byte) => byte.toString(16).padStart(2, '0')).join(':'),
    up: (view.getUint32(8, true) & IFF_UP) !== 0,
    carrier: attributes.get(IFLA_CARRIER)?.[0] === 1,
    operState: operStates[attributes.get(IFLA_OPERSTATE)?.[0] ?? 0] ?? 'unknown',
    master: master === undefined ? null : masterName(master),
    kind: kind === undefined ? null : textOf(kind),
    queues: (kind !== undefined && textOf(kind) === 'tun' && u32Of(data.get(IFLA_TUN_NUM_QUEUES))) || null,
    packetInformation: kind !== undefined && textOf(kind) === 'tun' && data.get(IFLA_TUN_PI)?.[0] === 1,
  };
}

/**
 * An interface by name, or by index, such as a {@link NetworkInterface}. The index is not reused in the network namespace; the
 * name is then for messages only.
 */
export type InterfaceId = string | { readonly name: string; readonly index: number };

/** The interface in words, for {@link SystemCallError.subject}. */
export function interfaceSubject(id: InterfaceId): string {
  return `interface ${typeof id === 'string' ? id : id.name}`;
}

function find(socket: RtnetlinkSocket, id: InterfaceId): NetworkInterface | null {
  if (typeof id === 'string') checkInterfaceName(id);
  const get = (subject: string, ...parts: Uint8Array[]) => {
    try {
      return socket.request('RTM_GETLINK', subject, 0, ...parts).find(({ type }) => type === RTM_NEWLINK);
    } catch (error) {
      if (error instanceof SystemCallError && error.errno === ENODEV) return undefined;
      throw error;
    }
  };
  const subject = interfaceSubject(id);
  const message =
    typeof id === 'string' ? get(subject, ifinfomsg(), nameAttribute(id)) : get(subject, ifinfomsg(id.index));
  if (message === undefined) return null;
  return describe(message, (index) => {
    const master = get(`interface ${index}`, ifinfomsg(index));
    return master === undefined ? null : describe(master, () => null).name;
  });
}

function indexOf(socket: RtnetlinkSocket, id: InterfaceId): number {
  if (typeof id !== 'string') return id.index;
  const found = find(socket, id);
  if (found === null) {
    const remedy = 'no interface of this name in this network namespace';
    throw new SystemCallError('RTM_GETLINK', interfaceSubject(id), ENODEV, remedy);
  }
  return found.index;
}

/** An interface of the calling thread's network namespace; null if there is none of this name or index. */
export function getInterface(id: InterfaceId): NetworkInterface | null {
  using socket = new RtnetlinkSocket();
  return find(socket, id);
}

/** The index of an interface of the calling thread's network namespace. Throws {@link SystemCallError} ENODEV. */
export function linkIndex(id: InterfaceId): number {
  using socket = new RtnetlinkSocket();
  return indexOf(socket, id);
}

/** All interfaces of the calling thread's network namespace, by index. */
export function listInterfaces(): NetworkInterface[] {
  using socket = new RtnetlinkSocket();
  const messages = socket.dump('RTM_GETLINK', 'all interfaces', ifinfomsg());
  const names = new Map(
    messages.map((message) => describe(message, () => null)).map((i) => [i.index, i.name]),
  );
  return messages
    .map((message) => describe(message, (index) => names.get(index) ?? null))
    .sort((a, b) => a.index - b.index);
}

/**
 * Waits, without polling, until `condition` is true for an interface of the calling thread's network namespace (null if it
 * does not exist). Blocks the thread. Throws Error after `timeoutMs`.
 */
export function waitForInterface(
  name: string,
  condition: (found: NetworkInterface | null) => boolean,
  timeoutMs = 5000,
): void {
  // Subscribed before the first query, so that no change is missed.
  using events = new RtnetlinkSocket(RTMGRP_LINK);
  const deadline = performance.now() + timeoutMs;
  while (!condition(getInterface(name))) {
    const left = deadline - performance.now();
    if (left <= 0) {
      const found = getInterface(name);
      const what = found === null ? 'is not there' : `is ${found.up ? 'up' : 'down'}, ${found.operState}`;
      throw new Error(`interface ${name} ${what} after ${timeoutMs} ms of waiting for another state`);
    }
    events.receiveEvents(left);
  }
}

/** Changes for {@link setInterface}; omitted properties are left alone. */
export interface InterfaceChange {
  readonly up?: boolean;
  /** Bytes of a packet, Ethernet header not included; 68 or more. */
  readonly mtu?: number;
  /** `02:00:00:00:00:01` */
  readonly mac?: string;
  /** The bridge to become a port of; null to leave it. */
  readonly bridge?: string | null;
  readonly name?: string;
  /** Descriptor of the network namespace to move to. The other changes happen there; not to be combined with `bridge`. */
  readonly netns?: number;
}

/**
 * Changes an interface of the calling thread's network namespace with one request. Throws RangeError for values that
 * no interface can have, before anything is changed, and {@link SystemCallError} if the kernel rejects the request.
 */
export function setInterface(id: InterfaceId, change: InterfaceChange): void {
  const subject = interfaceSubject(id);
  using socket = new RtnetlinkSocket();
  const attributes: Uint8Array[] = [];
  if (change.netns !== undefined) {
    if (change.bridge != null) {
      throw new RangeError(`${subject}: move it to the network namespace first, then to the bridge there`);
    }
    attributes.push(attribute(IFLA_NET_NS_FD, u32(change.netns)));
  }
  if (change.mtu !== undefined) {
    if (!Number.isInteger(change.mtu) || change.mtu < 0 || change.mtu > 0x7fffffff) {
      throw new RangeError(`${subject}: MTU ${change.mtu} is no number of bytes`);
    }
    attributes.push(attribute(IFLA_MTU, u32(change.mtu)));
  }
  if (change.mac !== undefined) attributes.push(attribute(IFLA_ADDRESS, macBytes(subject, change.mac)));
  if (change.name !== undefined) {
    checkInterfaceName(change.name);
    attributes.push(nameAttribute(change.name));
  }
  if (change.bridge !== undefined) {
    const master = change.bridge === null ? 0 : indexOf(socket, change.bridge);
    attributes.push(attribute(IFLA_MASTER, u32(master)));
  }
  const header = ifinfomsg(indexOf(socket, id), change.up ? IFF_UP : 0, change.up === undefined ? 0 : IFF_UP);
  try {
    socket.request('RTM_NEWLINK', subject, 0, header, ...attributes);
  } catch (error) {
    if (!(error instanceof SystemCallError && error.errno === EOPNOTSUPP && change.bridge)) throw error;
    throw new SystemCallError(
      'RTM_NEWLINK',
      subject,
      EOPNOTSUPP,
      `interface ${change.bridge} is not a bridge`,
    );
  }
}

/** The six bytes of `02:00:00:00:00:01`. Throws RangeError that begins with `subject`. */
export function macBytes(subject: string, mac: string): Uint8Array {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(mac)) {
    throw new RangeError(`${subject}: "${mac}" is no MAC address: write it like 02:00:00:00:00:01`);
  }
  return Uint8Array.from(mac.split(':'), (byte) => Number.parseInt(byte, 16));
}

/** Creates a bridge, initially down. Throws {@link SystemCallError} (EEXIST if the name is taken). */
export function createBridge(name: string): void {
  create(name, kindAttribute('bridge'));
}

/**
 * Creates a veth pair, initially down; with `peerNetns`, a descriptor, the peer is created in that network namespace. Throws
 * {@link SystemCallError} (EEXIST if a name is taken).
 */
export function createVeth(name: string, peerName: string, options: { peerNetns?: number } = {}): void {
  checkInterfaceName(peerName);
  const peer = [ifinfomsg(), nameAttribute(peerName)];
  if (options.peerNetns !== undefined) peer.push(attribute(IFLA_NET_NS_FD, u32(options.peerNetns)));
  create(name, kindAttribute('veth'), attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, ...peer)));
}

function create(name: string, ...linkInfo: Uint8Array[]): void {
  checkInterfaceName(name);
  const attributes = [nameAttribute(name), attribute(IFLA_LINKINFO, ...linkInfo)];
  const flags = NLM_F_CREATE | NLM_F_EXCL;
  rtnetlinkRequest('RTM_NEWLINK', `interface ${name}`, flags, ifinfomsg(), ...attributes);
}

/** Deletes an interface; deleting one end of a veth pair deletes both. Throws {@link SystemCallError} (ENODEV). */
export function deleteInterface(name: string): void {
  using socket = new RtnetlinkSocket();
  socket.request('RTM_DELLINK', `interface ${name}`, 0, ifinfomsg(indexOf(socket, name)));
}
