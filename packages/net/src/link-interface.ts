import { randomBytes } from 'node:crypto';
import { OptionError, SystemCallError } from '@ivshmem/linux';
import {
  ensureAddress,
  getInterface,
  Netns,
  type NetworkInterface,
  openTap,
  type Tap,
  tapOf,
} from '@ivshmem/linux/network';
import { type Epoll, Timer } from '@ivshmem/linux/wait';
import { type InterfaceListener, InterfaceWatch } from './interface-watch.ts';
import type { BridgeMtu } from './link-mtu.ts';
import type { LinkOptions } from './link-options.ts';

/** How often to look whether the network namespace still has the name that was given for it, in ms. */
const NAME_INTERVAL = 1000;

/**
 * The network interface of a link. It is made with the first MTU that is known, and then stays, whatever the port does.
 * The calling thread must have no other purpose: it enters the interface's network namespace for good.
 */
export class LinkInterface {
  readonly #options: LinkOptions;
  readonly #epoll: Epoll;
  readonly #changed: InterfaceListener;
  readonly #log: (text: string) => void;
  #tap: Tap | undefined;
  #watch: InterfaceWatch | undefined;
  #nameTimer: Timer | undefined;

  /** `changed` is called for changes that others make, `log` with a line for what cannot be followed. */
  constructor(options: LinkOptions, epoll: Epoll, changed: InterfaceListener, log: (text: string) => void) {
    this.#options = options;
    this.#epoll = epoll;
    this.#changed = changed;
    this.#log = log;
  }

  /** Whether it has been made. */
  get exists(): boolean {
    return this.#watch !== undefined;
  }

  /** Whether it has been found deleted since. */
  get deleted(): boolean {
    return this.#watch?.deleted ?? false;
  }

  /** The interface at the last look; {@link prepare} must have returned. */
  get current(): NetworkInterface {
    return this.#watch!.current;
  }

  /**
   * The TAP, with carrier off, and with the MTU that `setMtu` gives it by {@link setMtu}; the first time also up, and with
   * the addresses of the options. Throws {@link OptionError}, SystemCallError, and what `setMtu` throws; an interface that was to
   * be made does not exist then.
   */
  prepare(setMtu: () => void): Tap {
    if (this.#tap === undefined) return this.#make(setMtu);
    this.#tap.setCarrier(false);
    setMtu();
    return this.#tap;
  }

  /**
   * Sets the MTU, in bytes, unless the interface has it. Returns whether it has it then: this process may lack the
   * permission, and an administrator may set another. Throws SystemCallError.
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
    const master = this.#watch?.current.master ?? this.#options.bridge;
    const found = master ? getInterface(master) : null;
    return found?.kind === 'bridge' ? found : null;
  }

  /** Looks at it, and reports changes. Throws an Error of one line if it has been deleted. */
  look(): void {
    this.#watch?.look();
  }

  #make(setMtu: () => void): Tap {
    const { netns, bridge, addresses = [] } = this.#options;
    if (netns !== undefined) {
      using namespace = Netns.open(netns);
      namespace.enter();
    }
    const tap = this.#open();
    try {
      tap.setCarrier(false);
      const watch = new InterfaceWatch(tap, this.#epoll, this.#changed, this.#log);
      this.#watch = watch;
      checkFrames(watch.current);
      setMtu();
      if (bridge !== undefined) watch.apply({ bridge });
      watch.apply({ up: true });
      for (const address of addresses) ensureAddress(watch.current, address);
      if (netns !== undefined) this.#watchName(netns, watch);
    } catch (error) {
      this.close();
      tap.close();
      throw error;
    }
    this.#tap = tap;
    return tap;
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

  /** The TAP, and whether it has been made for this link. */
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

  /** The descriptor of the TAP keeps a namespace alive that has been deleted, and nothing is heard of that. */
  #watchName(netns: string, watch: InterfaceWatch): void {
    const first = watch.netns;
    this.#nameTimer = new Timer(this.#epoll, () => {
      // An interface that has been moved has nothing to do with the name any more.
      if (first === null || watch.netns !== first || Netns.isNamed(netns, first)) return;
      throw new Error(`network namespace ${netns}: it has been deleted, or has another name now`);
    });
    this.#nameTimer.every(NAME_INTERVAL);
  }

  close(): void {
    this.#nameTimer?.close();
    this.#watch?.close();
    this.#watch = undefined;
    this.#tap?.close();
  }
}

/** Throws an Error of one line unless the TAP passes all its frames to this link, with nothing before them. */
function checkFrames({ name, queues, packetInformation }: NetworkInterface): void {
  if (packetInformation) {
    throw new Error(`interface ${name}: has packet information before each frame: open it with IFF_NO_PI`);
  }
  // Frames of a TAP with several queues come out of any of them.
  if (queues === null || queues === 1) return;
  throw new Error(
    `interface ${name}: ${queues} queues of it are open, and a link needs all its frames: close the others`,
  );
}

/**
 * A unicast address that is locally administered. One that is set, rather than made up by the kernel, is left alone by
 * udev, which would replace it by one made from the interface's name and the machine ID: the same at both ends of a
 * link between VMs of one image.
 */
function randomMac(): string {
  const bytes = randomBytes(6);
  bytes[0] = (bytes[0]! & 0xfe) | 0x02;
  return bytes.toString('hex').replace(/..(?!$)/g, '$&:');
}
