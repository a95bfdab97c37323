import { existsSync, writeFileSync } from 'node:fs';
import { checkInterfaceName, type InterfaceId, interfaceSubject, linkIndex } from './interface.ts';
import {
  AF_INET,
  AF_INET6,
  hasHostBits,
  type IpPrefix,
  parseIpAddress,
  parseIpPrefix,
} from './ip-address.ts';
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, RtnetlinkSocket, rtnetlinkRequest } from './netlink.ts';
import { attribute, decodeAttributes, u32, u32Of } from './netlink-message.ts';

// linux/if_addr.h
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_F_NODAD = 2;
/** struct ifaddrmsg: {u8 family, u8 prefix length, u8 flags, u8 scope, u32 index}. */
const IFADDRMSG_SIZE = 8;

// linux/rtnetlink.h
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RT_TABLE_MAIN = 254;
const RTPROT_STATIC = 4;
const RT_SCOPE_UNIVERSE = 0;
const RT_SCOPE_LINK = 253;
const RTN_UNICAST = 1;

/**
 * Adds an address, such as `10.0.0.1/24` or `fd00::1/64`, to an interface of the calling thread's network namespace. It is
 * usable at once: duplicate address detection, which would delay an IPv6 address by a second or two, is disabled. Throws
 * RangeError, and `SystemCallError` (EEXIST if the interface already has the address).
 */
export function addAddress(id: InterfaceId, prefix: string): void {
  putAddress(id, prefix, NLM_F_EXCL);
}

/** `mode`: what to do if the address exists, NLM_F_EXCL or NLM_F_REPLACE. */
function putAddress(id: InterfaceId, prefix: string, mode: number): void {
  const { family, bytes, length } = parseIpPrefix(prefix);
  const flags = family === AF_INET6 ? IFA_F_NODAD : 0;
  const header = new Uint8Array(IFADDRMSG_SIZE);
  header.set([family, length, flags, RT_SCOPE_UNIVERSE]);
  header.set(u32(linkIndex(id)), 4);
  rtnetlinkRequest(
    'RTM_NEWADDR',
    `${prefix} on ${interfaceSubject(id)}`,
    NLM_F_CREATE | mode,
    header,
    attribute(IFA_LOCAL, bytes),
    attribute(IFA_ADDRESS, bytes),
  );
}

/**
 * Adds an address unless the interface already has it; then no privilege is required. Throws RangeError and
 * `SystemCallError`.
 */
export function ensureAddress(id: InterfaceId, prefix: string): void {
  const { family, bytes, length } = parseIpPrefix(prefix);
  using socket = new RtnetlinkSocket();
  const index = linkIndex(id);
  const header = new Uint8Array(IFADDRMSG_SIZE);
  header[0] = family;
  const found = socket
    .dump('RTM_GETADDR', `addresses of ${interfaceSubject(id)}`, header)
    .some(({ payload }) => {
      const attributes = decodeAttributes(payload.subarray(IFADDRMSG_SIZE));
      const local = attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS);
      return (
        payload[0] === family &&
        payload[1] === length &&
        u32Of(payload.subarray(4)) === index &&
        local !== undefined &&
        Buffer.compare(local, bytes) === 0
      );
    });
  // Another program may add it at the same time.
  if (!found) putAddress(id, prefix, NLM_F_REPLACE);
}

export interface Route {
  /** The network, `10.1.0.0/16`, or `default`. */
  readonly to: string;
  /** The router's address. At least one of `via` and `device` is required. */
  readonly via?: string;
  /** The interface. */
  readonly device?: string;
}

/**
 * Adds a route to the main table of the calling thread's network namespace. Throws RangeError, and
 * `SystemCallError` (EEXIST if there is already a route to that network).
 */
export function addRoute(route: Route): void {
  const { to, via, device } = route;
  const gateway = via === undefined ? undefined : parseIpAddress(via);
  const network: IpPrefix =
    to === 'default'
      ? { family: gateway?.family ?? AF_INET, bytes: new Uint8Array(gateway?.bytes.length ?? 4), length: 0 }
      : parseIpPrefix(to);
  if (hasHostBits(network)) throw new RangeError(`route to ${to}: bits behind the prefix must be 0`);
  if (gateway !== undefined && gateway.family !== network.family) {
    throw new RangeError(`route to ${to} via ${via}: one is IPv4, the other IPv6`);
  }
  if (gateway === undefined && device === undefined)
    throw new RangeError(`route to ${to}: say via or device`);
  const scope = gateway === undefined && network.family === AF_INET ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  // struct rtmsg: {u8 family, u8 destination length, u8 source length, u8 tos, u8 table, u8 protocol, u8 scope,
  // u8 type, u32 flags}.
  const header = new Uint8Array(12);
  header.set([network.family, network.length, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST]);
  const attributes: Uint8Array[] = [];
  if (network.length > 0) attributes.push(attribute(RTA_DST, network.bytes));
  if (gateway !== undefined) attributes.push(attribute(RTA_GATEWAY, gateway.bytes));
  if (device !== undefined) attributes.push(attribute(RTA_OIF, u32(linkIndex(device))));
  rtnetlinkRequest('RTM_NEWROUTE', `route to ${to}`, NLM_F_CREATE | NLM_F_EXCL, header, ...attributes);
}

/**
 * Enables or disables IPv6 on an interface of the calling thread's network namespace. While disabled, the interface sends no
 * router solicitations or multicast reports. Throws Error if there is no such interface.
 */
export function setIpv6(name: string, enabled: boolean): void {
  checkInterfaceName(name);
  // A kernel without IPv6 has nothing to disable.
  if (!enabled && !existsSync('/proc/sys/net/ipv6')) return;
  // Opened by this thread: the file belongs to the network namespace of the thread that opens it.
  writeFileSync(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, enabled ? '0' : '1');
}
