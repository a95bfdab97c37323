import { addAddress, getInterface, Netns, openTap, setInterface, type Tap } from '@ivshmem/linux';
import type { LinkOptions } from './link-options.ts';

/** The network interface of a link. It is made with the first MTU that is known, and then stays, whatever the port does. */
export class LinkInterface {
  readonly #options: LinkOptions;
  #netns: Netns | undefined;
  #tap: Tap | undefined;

  constructor(options: LinkOptions) {
    this.#options = options;
  }

  /** Whether there is an interface already. */
  get exists(): boolean {
    return this.#tap !== undefined;
  }

  /**
   * The TAP, with carrier off and an MTU of `mtu` bytes; up, and with the addresses of the options. Throws RangeError
   * and SystemCallError; an interface that was to be made does not exist then.
   */
  prepare(mtu: number): Tap {
    if (this.#tap !== undefined) {
      this.#tap.setCarrier(false);
      this.#inNetns(() => this.#setMtu(mtu));
      return this.#tap;
    }
    const { tap: name, offload = true } = this.#options;
    const tap = this.#inNetns(() => openTap(name, { vnetHeader: offload }));
    try {
      tap.setCarrier(false);
      this.#inNetns(() => this.#configure(mtu));
    } catch (error) {
      tap.close();
      throw error;
    }
    this.#tap = tap;
    return tap;
  }

  #setMtu(mtu: number): void {
    const { tap } = this.#options;
    if (getInterface(tap)?.mtu !== mtu) setInterface(tap, { mtu });
  }

  #configure(mtu: number): void {
    const { tap, mac, addresses = [], bridge } = this.#options;
    setInterface(tap, { mtu, ...(mac !== undefined && { mac }), ...(bridge !== undefined && { bridge }) });
    setInterface(tap, { up: true });
    for (const address of addresses) addAddress(tap, address);
  }

  #inNetns<T>(fn: () => T): T {
    const { netns } = this.#options;
    if (netns === undefined) return fn();
    this.#netns ??= Netns.open(netns);
    return this.#netns.run(fn);
  }

  close(): void {
    this.#tap?.close();
    this.#netns?.close();
  }
}
