import { randomBytes } from 'node:crypto';
import { closeFd, OptionError, SystemCallError } from '@ivshmem/linux';
import {
  addOvsPort,
  ensureAddress,
  getInterface,
  isOvsBridge,
  Netns,
  type NetworkInterface,
  openTap,
  removeOvsPort,
  type Tap,
  tapOf,
} from '@ivshmem/linux/network';
import { type Epoll, Timer } from '@ivshmem/linux/wait';
import { type InterfaceListener, InterfaceWatch } from './interface-watch.ts';
import type { BridgeMtu } from './link-mtu.ts';
import type { LinkOptions } from './link-options.ts';
import type { LinkRecord } from './link-record.ts';

/** Interval at which to check that the network namespace still has the name in the options, in ms. */
const NAME_INTERVAL = 1000;

/**
 * The network interface of a link. It is created once the first MTU is known, and then remains while ports come and go.
 * The calling thread must have no other purpose: it enters the interface's network namespace and does not return.
 */
export class LinkInterface {
  readonly #options: LinkOptions;
  readonly #epoll: Epoll;
  readonly #changed: InterfaceListener;
  readonly #log: (text: string) => void;
  readonly #record: LinkRecord | undefined;
  #tap: Tap | undefined;
  #watch: InterfaceWatch | undefined;
  #nameTimer: Timer | undefined;
  /** Of Open vSwitch, if {@link #join} has added the interface there. */
  #ovsBridge: string | undefined;

  /**
   * `changed` is called for changes by other processes, `log` with a line if the interface can no longer be followed. With `record`,
   * which it owns, the interface is kept for the next process: see {@link restore}.
   */
  constructor(
    options: LinkOptions,
    epoll: Epoll,
    changed: InterfaceListener,
    log: (text: string) => void,
    record?: LinkRecord,
  ) {
    this.#record = record;
    this.#options = options;
    this.#epoll = epoll;
    this.#changed = changed;
    this.#log = log;
  }

  /** Whether it has been created or attached to. */
  get exists(): boolean {
    return this.#watch !== undefined;
  }

  /** Whether it has been deleted since. */
  get deleted(): boolean {
    return this.#watch?.deleted ?? false;
  }

  /** The interface as of the last query; {@link prepare} must have returned. */
  get current(): NetworkInterface {
    return this.#watch!.current;
  }

  /**
   * Returns the TAP with its carrier off, after `setMtu` has called {@link setMtu}. The first call creates the interface or
   * attaches to it, sets the addresses of the options, and takes it up. Throws {@link OptionError}, SystemCallError, and
   * what `setMtu` throws; a new interface is removed again then.
   */
  prepare(setMtu: () => void): Tap {
    if (this.#tap === undefined) return this.#make(setMtu);
    this.#tap.setCarrier(false);
    setMtu();
    return this.#tap;
  }

  /**
   * Continues on the interface of the process before, as it is now, with its carrier off. Returns false if there is none that is
   * usable; why not is logged.
   */
  restore(): boolean {
    const fd = this.#record?.takeTap();
    if (fd === undefined) return false;
    const { mac, offload = true } = this.#options;
    let tap: Tap | undefined;
    try {
      tap = tapOf(fd);
      if (tap.vnetHeader !== offload) throw new Error('it was opened for a link with another --no-offload');
      if (mac !== undefined) tap.setMac(mac);
      this.#follow(tap);
      this.#configure(this.#watch!);
      this.#tap = tap;
      return true;
    } catch (error) {
      this.#log(`the interface of the process before is not used: ${(error as Error).message}`);
      this.#leave();
      tap?.close();
      this.#record!.discard();
      return false;
    } finally {
      closeFd(fd);
    }
  }

  /**
   * Sets the MTU, in bytes, unless the interface has it already. Returns whether it has it afterwards: this process may
   * lack the permission, or an administrator may set another at the same time. Throws SystemCallError.
   */
  setMtu(mtu: number): boolean {
    try {
      this.#watch!.apply({ mtu });
    } catch (error) {
      if (!(error instanceof SystemCallError && error.code === 'EPERM')) throw error;
    }
    return this.current.mtu === mtu;
  }

  /** The bridge that the interface is a port of, or is to join; null if there is none. */
  get bridge(): BridgeMtu | null {
    const { netns, bridge } = this.#options;
    // This thread is not in the namespace yet.
    if (this.#watch === undefined && netns !== undefined) return null;
    const master = this.#watch?.current.master;
    const found = master ? getInterface(master) : null;
    if (found?.kind === 'bridge') return found;
    // Ports of Open vSwitch have another master, or none.
    const wanted = bridge === undefined ? null : getInterface(bridge);
    return wanted !== null && (wanted.kind === 'bridge' || isOvsBridge(wanted)) ? wanted : null;
  }

  /** Queries the interface, and reports changes. Throws an Error of one line if it has been deleted. */
  look(): void {
    this.#watch?.look();
  }

  #make(setMtu: () => void): Tap {
    const { netns } = this.#options;
    if (netns !== undefined) {
      using namespace = Netns.open(netns);
      namespace.enter();
    }
    const tap = this.#open();
    try {
      const watch = this.#follow(tap);
      setMtu();
      this.#configure(watch, () => watch.apply({ up: true }));
    } catch (error) {
      this.#leave();
      tap.close();
      throw error;
    }
    this.#tap = tap;
    this.#record?.keep(tap.fd);
    return tap;
  }

  #follow(tap: Tap): InterfaceWatch {
    tap.setCarrier(false);
    this.#watch = new InterfaceWatch(tap, this.#epoll, this.#changed, this.#log);
    checkFrames(this.#watch.current);
    return this.#watch;
  }

  /** What the options demand of the interface. An interface that was there before stays up or down, as an administrator left it. */
  #configure(watch: InterfaceWatch, takeUp = () => {}): void {
    const { netns, bridge, addresses = [] } = this.#options;
    if (bridge !== undefined) this.#join(bridge, watch);
    takeUp();
    for (const address of addresses) ensureAddress(watch.current, address);
    if (netns !== undefined) this.#watchName(netns, watch);
  }

  #join(bridge: string, watch: InterfaceWatch): void {
    const found = getInterface(bridge);
    if (found === null || !isOvsBridge(found)) {
      watch.apply({ bridge });
      return;
    }
    if (found.kind === 'tun' && (this.#options.offload ?? true)) {
      throw new OptionError(
        'offload',
        `bridge ${bridge}: the user-space datapath of Open vSwitch drops packets whose checksums or segments are left to offloads: use --no-offload`,
      );
    }
    if (addOvsPort(bridge, watch.current.name) || this.#record?.ovsPort) this.#ovsBridge = bridge;
    if (this.#record !== undefined) this.#record.ovsPort = this.#ovsBridge !== undefined;
  }

  #open(): Tap {
    const { mac } = this.#options;
    const [tap, isNew] = this.#attach();
    try {
      if (isNew || mac !== undefined) tap.setMac(mac ?? randomMac());
      return tap;
    } catch (error) {
      tap.close();
      throw error;
    }
  }

  /** The TAP, and whether it was created for this link. */
  #attach(): [tap: Tap, isNew: boolean] {
    const { tap, tapFd, offload: vnetHeader = true } = this.#options;
    if (tapFd !== undefined) {
      const taken = tapOf(tapFd);
      if (vnetHeader || !taken.vnetHeader) return [taken, false];
      taken.close();
      throw new OptionError(
        'offload',
        `fd ${tapFd}: a link without offload needs a TAP that was opened without IFF_VNET_HDR`,
      );
    }
    try {
      return [openTap(tap!, { vnetHeader, exclusive: true }), true];
    } catch (error) {
      if (error instanceof SystemCallError && error.code === 'EBUSY')
        return [openTap(tap!, { vnetHeader }), false];
      throw error;
    }
  }

  /** The TAP's descriptor keeps a deleted namespace alive, and the kernel does not notify of the deletion: so poll. */
  #watchName(netns: string, watch: InterfaceWatch): void {
    const first = watch.netns;
    this.#nameTimer = new Timer(this.#epoll, () => {
      // If the interface has been moved, the name no longer matters.
      if (first === null || watch.netns !== first || Netns.isNamed(netns, first)) return;
      throw new Error(`network namespace ${netns}: it has been deleted, or has another name now`);
    });
    this.#nameTimer.every(NAME_INTERVAL);
  }

  /** Releases the interface, which exists as long as a descriptor of it is open. */
  close(): void {
    this.#leave();
    this.#tap?.close();
    this.#record?.close();
  }

  #leave(): void {
    this.#nameTimer?.close();
    if (this.#ovsBridge !== undefined && this.#watch !== undefined)
      removeOvsPort(this.#ovsBridge, this.#watch.current.name);
    this.#ovsBridge = undefined;
    this.#watch?.close();
    this.#watch = undefined;
  }
}

/** Throws an Error of one line unless the TAP passes all its frames to this link, without packet information. */
function checkFrames({ name, queues, packetInformation }: NetworkInterface): void {
  if (packetInformation) {
    throw new Error(`interface ${name}: has packet information before each frame: open it with IFF_NO_PI`);
  }
  // The kernel distributes the frames of a TAP among its queues.
  if (queues === null || queues === 1) return;
  throw new Error(
    `interface ${name}: ${queues} queues of it are open, and a link needs all its frames: close the others`,
  );
}

/**
 * A random unicast address, locally administered. udev replaces an address that the kernel chose by one derived from the
 * interface's name and the machine ID, which is the same at both ends of a link between VMs of one image. It does not
 * replace an address that was set explicitly.
 */
function randomMac(): string {
  const bytes = randomBytes(6);
  bytes[0] = (bytes[0]! & 0xfe) | 0x02;
  return bytes.toString('hex').replace(/..(?!$)/g, '$&:');
}
