import { O_CLOEXEC, O_NONBLOCK, O_RDWR } from './constants.ts';
import { check, SystemCallError } from './errors.ts';
import { closeFd } from './fd.ts';
import { checkInterfaceName } from './interface.ts';
import * as libc from './libc.ts';

// linux/if_tun.h
const TUNSETIFF = 0x400454ca;
const TUNSETPERSIST = 0x400454cb;
const TUNSETOFFLOAD = 0x400454d0;
const TUNSETCARRIER = 0x400454e2;
const IFF_TAP = 2;
const IFF_NO_PI = 0x1000;
const IFF_TUN_EXCL = 0x8000;
/** struct ifreq: {char name[16], u16 flags, …}. */
const IFREQ_SIZE = 40;
const IFNAMSIZ = 16;

const DEVICE = '/dev/net/tun';

/**
 * The largest MTU of a TAP: the driver takes frames of 65535 bytes, of which 14 are the Ethernet header. (The kernel's
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
  EBUSY: 'a TAP of this name is in use: stop its user, or choose another name',
  EINVAL: 'an interface of this name exists and is no TAP with a single queue: choose another name',
  EPERM: 'needs CAP_NET_ADMIN in this network namespace',
};

/** A TAP interface: whoever holds `fd` is what is at the other end of its cable. */
export class Tap {
  /**
   * Non-blocking, close-on-exec. read(2) takes one frame that the kernel sends, write(2) gives it one to receive:
   * Ethernet header and payload, no checksum (FCS), nothing before it. The interface must be up for either (EIO).
   */
  readonly fd: number;
  readonly name: string;
  #open = true;

  /** Takes over `fd`, which is attached to the interface `name`: see {@link openTap}. */
  constructor(fd: number, name: string) {
    this.fd = fd;
    this.name = name;
  }

  /** Plugs the cable in, or pulls it. Throws {@link SystemCallError}. */
  setCarrier(on: boolean): void {
    const value = Uint8Array.of(on ? 1 : 0, 0, 0, 0);
    check(libc.ioctl(this.fd, TUNSETCARRIER, 'void *', value), 'TUNSETCARRIER', `interface ${this.name}`);
  }

  /** Whether the interface outlives its descriptor. Throws {@link SystemCallError}. */
  setPersistent(on: boolean): void {
    const result = libc.ioctlInt(this.fd, TUNSETPERSIST, 'long', on ? 1 : 0);
    check(result, 'TUNSETPERSIST', `interface ${this.name}`);
  }

  /** Gives it back; the interface goes where it is not persistent. Doing it again changes nothing. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeFd(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

export interface TapOptions {
  /** The interface outlives its descriptor, until {@link Tap.setPersistent}(false) or its deletion. */
  readonly persist?: boolean;
  /** Refuse to attach to a TAP that exists (EBUSY). */
  readonly exclusive?: boolean;
}

/**
 * Makes a TAP interface, or attaches to a persistent one, in the calling thread's network namespace. A new one is
 * down. Throws RangeError for a name that no interface can have, and {@link SystemCallError} with the remedy.
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
    const flags = IFF_TAP | IFF_NO_PI | (options.exclusive ? IFF_TUN_EXCL : 0);
    const ifreq = Buffer.alloc(IFREQ_SIZE);
    ifreq.write(name);
    ifreq.writeUInt16LE(flags, IFNAMSIZ);
    const subject = `interface ${name}`;
    checked(libc.ioctl(fd, TUNSETIFF, 'void *', ifreq), 'TUNSETIFF', subject, attachRemedies);
    // A former user of a persistent TAP may have promised to compute checksums and to cut large packets.
    check(libc.ioctlInt(fd, TUNSETOFFLOAD, 'long', 0), 'TUNSETOFFLOAD', subject);
    const tap = new Tap(fd, name);
    if (options.persist !== undefined) tap.setPersistent(options.persist);
    return tap;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

function checked(result: number, call: string, subject: string, remedies: Record<string, string>): number {
  if (result !== -1) return result;
  const errno = libc.errno();
  const { code } = new SystemCallError(call, subject, errno);
  throw new SystemCallError(call, subject, errno, remedies[code]);
}
