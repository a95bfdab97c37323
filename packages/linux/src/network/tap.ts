import { constants } from 'node:os';
import { O_CLOEXEC, O_NONBLOCK, O_RDWR } from '../constants.ts';
import { check, SystemCallError } from '../errors.ts';
import { closeFd, duplicateFd, setNonBlocking } from '../fd.ts';
import * as libc from '../libc.ts';
import { OwnedFd } from '../owned-fd.ts';
import { checkInterfaceName, macBytes } from './interface.ts';
import { Netns } from './netns.ts';

// linux/if_tun.h
const TUNSETIFF = 0x400454ca;
const TUNGETIFF = 0x800454d2;
const TUNSETPERSIST = 0x400454cb;
const TUNSETOWNER = 0x400454cc;
const TUNSETOFFLOAD = 0x400454d0;
const TUNSETVNETHDRSZ = 0x400454d8;
const TUNSETVNETLE = 0x400454dc;
const TUNSETCARRIER = 0x400454e2;
const TUNGETDEVNETNS = 0x54e3;
const SIOCSIFHWADDR = 0x8924;
const ARPHRD_ETHER = 1;
const IFF_TAP = 2;
const IFF_MULTI_QUEUE = 0x100;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const IFF_TUN_EXCL = 0x8000;
/** struct ifreq: {char name[16], u16 flags, …}. */
const IFREQ_SIZE = 40;
const IFNAMSIZ = 16;

const { EPERM, EINVAL } = constants.errno;
/** Error of all requests but TUNSETIFF after the interface has been deleted. */
const EBADFD = 77;

const DEVICE = '/dev/net/tun';

/**
 * Work that the reader of a TAP can take over from the kernel: see {@link Tap.setOffload}.
 * Source: linux/if_tun.h.
 */
export const TunOffload = {
  /** Compute checksums. Required by the others. */
  CSUM: 0x01,
  /** Cut TCP segments of up to 64 KiB, over IPv4, over IPv6, and with congestion notification (ECN). */
  TSO4: 0x02,
  TSO6: 0x04,
  TSO_ECN: 0x08,
  /** Cut UDP payloads, over IPv4 and IPv6; both or neither. Linux 6.2 or later. */
  USO4: 0x20,
  USO6: 0x40,
} as const;

/** Bytes of struct virtio_net_hdr before each frame: {@link TapOptions.vnetHeader}. */
export const VNET_HEADER_SIZE = 10;

/**
 * The largest MTU of a TAP: the driver accepts frames of 65535 bytes, of which 14 are the Ethernet header. (The kernel's
 * largest packet has 65535 bytes.)
 */
export const TAP_MAX_MTU = 65535 - 14;

const openRemedies: Record<string, string> = {
  ENOENT: `load the driver with "modprobe tun"; where the node is missing, "mkdir -p /dev/net && mknod ${DEVICE} c 10 200"; in a container, start it with --device ${DEVICE}`,
  ENODEV: 'the kernel has no TUN/TAP driver: load it with "modprobe tun"',
  ENXIO: 'the kernel has no TUN/TAP driver: load it with "modprobe tun"',
  EACCES: `needs permission to read and write ${DEVICE}`,
  EPERM: `this container may not use it: start it with --device ${DEVICE}`,
};

const attachRemedies: Record<string, string> = {
  ENOTTY: `${DEVICE} is another device: make it with "mknod ${DEVICE} c 10 200"`,
  EBUSY: 'a TAP of this name is in use: stop its user, or choose another name',
  EINVAL: 'an interface of this name exists and is no TAP: choose another name',
  EPERM:
    'needs CAP_NET_ADMIN in this network namespace, or a TAP that root has made for this user: ip tuntap add NAME mode tap user USER',
};

const NO_TAP =
  'is no TAP: pass an open descriptor of /dev/net/tun that is attached to an interface (TUNSETIFF)';
const descriptorRemedies: Record<string, string> = {
  EBADF: 'no such descriptor: the program that starts this one must pass it on (no FD_CLOEXEC)',
  EBADFD: NO_TAP,
  EINVAL: NO_TAP,
  ENOTTY: NO_TAP,
};

/**
 * A TAP interface; the holder of `fd` is the other end of its link. The descriptor follows the interface when that is renamed or
 * moved to another network namespace; the name does not. A non-persistent interface is removed when the descriptor is closed.
 *
 * `fd` is non-blocking and close-on-exec. read(2) returns a frame that the kernel sends, write(2) passes one for it to receive:
 * Ethernet header and payload, no checksum (FCS), nothing before it but the header of {@link vnetHeader}. The
 * interface must be up for either (EIO).
 */
export class Tap extends OwnedFd {
  /** Whether {@link VNET_HEADER_SIZE} bytes of struct virtio_net_hdr, little-endian, stand before each frame. */
  readonly vnetHeader: boolean;
  #name: string;

  /** Takes ownership of `fd`, which is attached to the interface `name`: see {@link openTap}. */
  constructor(fd: number, name: string, vnetHeader: boolean) {
    super(fd);
    this.#name = name;
    this.vnetHeader = vnetHeader;
  }

  /** The name that the interface had when {@link identify} was last called, or when it was opened. */
  get name(): string {
    return this.#name;
  }

  /** Queries the current name. Returns null if the interface has been deleted. Throws {@link SystemCallError}. */
  identify(): string | null {
    const ifreq = Buffer.alloc(IFREQ_SIZE);
    const result = libc.ioctl(this.fd, TUNGETIFF, 'void *', ifreq);
    if (result === -1 && libc.errno() === EBADFD) return null;
    this.#check(result, 'TUNGETIFF');
    this.#name = ifreq.toString('utf8', 0, ifreq.indexOf(0));
    return this.#name;
  }

  /**
   * The network namespace of the interface, which the caller closes. Returns null without CAP_NET_ADMIN in it. Throws
   * {@link SystemCallError}.
   */
  netns(): Netns | null {
    const fd = libc.ioctlInt(this.fd, TUNGETDEVNETNS, 'long', 0);
    if (fd === -1 && libc.errno() === EPERM) return null;
    return new Netns(this.#check(fd, 'TUNGETDEVNETNS'));
  }

  /** Turns the carrier on or off. Throws {@link SystemCallError}. */
  setCarrier(on: boolean): void {
    const value = Uint8Array.of(on ? 1 : 0, 0, 0, 0);
    this.#check(libc.ioctl(this.fd, TUNSETCARRIER, 'void *', value), 'TUNSETCARRIER');
  }

  /** Sets the hardware address, `02:00:00:00:00:01`. Throws RangeError and {@link SystemCallError}. */
  setMac(mac: string): void {
    const ifreq = Buffer.alloc(IFREQ_SIZE);
    // struct sockaddr {u16 family, address}; the name is ignored.
    ifreq.writeUInt16LE(ARPHRD_ETHER, IFNAMSIZ);
    ifreq.set(macBytes(`interface ${this.#name}`, mac), IFNAMSIZ + 2);
    this.#check(libc.ioctl(this.fd, SIOCSIFHWADDR, 'void *', ifreq), 'SIOCSIFHWADDR');
  }

  /**
   * Sets the work that the reader takes over, bits of {@link TunOffload}: requires {@link vnetHeader}. Frames already sent by
   * the kernel do not change. Returns false, and changes nothing, if the kernel does not support one of the bits. Throws
   * {@link SystemCallError}.
   */
  setOffload(bits: number): boolean {
    const result = libc.ioctlInt(this.fd, TUNSETOFFLOAD, 'long', bits);
    if (result === -1 && libc.errno() === EINVAL) return false;
    this.#check(result, 'TUNSETOFFLOAD');
    return true;
  }

  /** Whether the interface outlives its descriptor. Throws {@link SystemCallError}. */
  setPersistent(on: boolean): void {
    const result = libc.ioctlInt(this.fd, TUNSETPERSIST, 'long', on ? 1 : 0);
    this.#check(result, 'TUNSETPERSIST');
  }

  #check(result: number, call: string): number {
    if (result !== -1) return result;
    const errno = libc.errno();
    const subject = `interface ${this.#name}`;
    throw new SystemCallError(call, subject, errno, errno === EBADFD ? 'it has been deleted' : undefined);
  }
}

export interface TapOptions {
  /** The interface outlives its descriptor, until {@link Tap.setPersistent}(false) or its deletion. */
  readonly persist?: boolean;
  /** Uid that may attach to it without a privilege; none by default. */
  readonly owner?: number;
  /** Fail if the TAP already exists (EBUSY). */
  readonly exclusive?: boolean;
  /** A struct virtio_net_hdr before each frame, in both directions: see {@link Tap.vnetHeader}. */
  readonly vnetHeader?: boolean;
}

/**
 * Creates a TAP interface, or attaches to a persistent one, in the calling thread's network namespace. A new one is down. The
 * options replace the settings of a persistent one, and the kernel computes checksums until {@link Tap.setOffload}. Throws
 * RangeError for an invalid name, and {@link SystemCallError} with a remedy.
 */
export function openTap(name: string, options: TapOptions = {}): Tap {
  checkInterfaceName(name);
  const fd = checked(
    libc.open(DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC, 'uint', 0),
    'open',
    DEVICE,
    openRemedies,
  );
  try {
    const { exclusive = false, vnetHeader = false } = options;
    const flags = IFF_TAP | IFF_NO_PI | (exclusive ? IFF_TUN_EXCL : 0) | (vnetHeader ? IFF_VNET_HDR : 0);
    let result = attach(fd, name, flags);
    // A TAP with several queues requires this flag; other causes of EINVAL fail again.
    if (result === -1 && libc.errno() === EINVAL) result = attach(fd, name, flags | IFF_MULTI_QUEUE);
    checked(result, 'TUNSETIFF', `interface ${name}`, attachRemedies);
    const tap = prepared(fd, name, vnetHeader);
    if (options.owner !== undefined) {
      const result = libc.ioctlInt(fd, TUNSETOWNER, 'long', options.owner);
      check(result, 'TUNSETOWNER', `interface ${name}`);
    }
    if (options.persist !== undefined) tap.setPersistent(options.persist);
    return tap;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

function attach(fd: number, name: string, flags: number): number {
  const ifreq = Buffer.alloc(IFREQ_SIZE);
  ifreq.write(name);
  ifreq.writeUInt16LE(flags, IFNAMSIZ);
  return libc.ioctl(fd, TUNSETIFF, 'void *', ifreq);
}

/** A TAP whose descriptor is attached; a former user may have promised to compute checksums and to cut large packets. */
function prepared(fd: number, name: string, vnetHeader: boolean): Tap {
  const subject = `interface ${name}`;
  check(libc.ioctlInt(fd, TUNSETOFFLOAD, 'long', 0), 'TUNSETOFFLOAD', subject);
  if (vnetHeader) {
    const int = (value: number) => new Uint8Array(Int32Array.of(value).buffer);
    check(libc.ioctl(fd, TUNSETVNETHDRSZ, 'void *', int(VNET_HEADER_SIZE)), 'TUNSETVNETHDRSZ', subject);
    check(libc.ioctl(fd, TUNSETVNETLE, 'void *', int(1)), 'TUNSETVNETLE', subject);
  }
  return new Tap(fd, name, vnetHeader);
}

/**
 * Returns a TAP that another program, or another part of this one, has opened. It has a duplicate of `fd`, which its owner
 * keeps; a non-persistent interface is removed when both are closed. The owner chooses with IFF_VNET_HDR whether there is a
 * header ({@link Tap.vnetHeader}). Offloads, the size of the header and O_NONBLOCK, which belong to the open file, are set
 * as by {@link openTap}. Throws {@link SystemCallError} with a remedy if the descriptor is not a TAP. A missing IFF_NO_PI
 * cannot be detected from the descriptor, since TUNGETIFF returns IFF_NOFILTER in the same bit: see
 * {@link NetworkInterface.packetInformation}.
 */
export function tapOf(fd: number): Tap {
  const subject = `fd ${fd}`;
  const ifreq = Buffer.alloc(IFREQ_SIZE);
  checked(libc.ioctl(fd, TUNGETIFF, 'void *', ifreq), 'TUNGETIFF', subject, descriptorRemedies);
  const flags = ifreq.readUInt16LE(IFNAMSIZ);
  if ((flags & IFF_TAP) === 0) {
    throw new SystemCallError('TUNGETIFF', subject, EINVAL, 'is a TUN: open it with IFF_TAP | IFF_NO_PI');
  }
  const own = duplicateFd(fd);
  try {
    setNonBlocking(own);
    return prepared(own, ifreq.toString('utf8', 0, ifreq.indexOf(0)), (flags & IFF_VNET_HDR) !== 0);
  } catch (error) {
    closeFd(own);
    throw error;
  }
}

function checked(result: number, call: string, subject: string, remedies: Record<string, string>): number {
  if (result !== -1) return result;
  const errno = libc.errno();
  const { code } = new SystemCallError(call, subject, errno);
  throw new SystemCallError(call, subject, errno, remedies[code]);
}
