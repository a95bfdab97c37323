import { pci } from '@ivshmem/transport/protocol';
import { ConfigurationSpace, type DeviceIdentity } from './configuration-space.ts';

const { Register } = pci;

/** What the caller has to do after a register was written. */
export type DeviceAction =
  /** Interrupt a peer, perhaps this one itself. The peer may not exist. */
  | { readonly type: 'ring'; readonly peer: number; readonly vector: number }
  /** Put a changed state into the state table, then interrupt all other peers on vector 0. */
  | { readonly type: 'state'; readonly value: number };

/**
 * The ivshmem v2 PCI device as its guest sees it, without the shared memory: register accesses go in, actions come out. It
 * depends on no transport, makes no system call and reads no clock. Offsets are those of `pci.Register` in
 * `@ivshmem/transport/protocol`.
 * Source: specification, "Guest-side Programming Model".
 */
export class DeviceModel {
  readonly identity: DeviceIdentity;
  readonly configuration: ConfigurationSpace;
  #interruptControl = 0;
  #state = 0;

  /** A device after reset. Throws RangeError, see {@link ConfigurationSpace}. */
  constructor(identity: DeviceIdentity) {
    this.identity = identity;
    this.configuration = new ConfigurationSpace(identity);
  }

  /** State register. */
  get state(): number {
    return this.#state;
  }

  /** Reads `size` bytes at `offset` of the register region. 0 if there is no register, or the access is not of 32 bits, aligned. */
  readRegister(offset: number, size: number): number {
    if (size !== 4) return 0;
    switch (offset) {
      case Register.ID:
        return this.identity.id;
      case Register.MAXIMUM_PEERS:
        return this.identity.maxPeers;
      case Register.INTERRUPT_CONTROL:
        return this.#interruptControl;
      case Register.STATE:
        return this.#state;
      default:
        return 0;
    }
  }

  /** Writes a u32. No effect, and null, if there is no register, or the access is not of 32 bits, aligned. */
  writeRegister(offset: number, size: number, value: number): DeviceAction | null {
    if (size !== 4) return null;
    switch (offset) {
      case Register.INTERRUPT_CONTROL:
        this.#interruptControl = value & pci.INTERRUPT_ENABLE;
        return null;
      case Register.DOORBELL: {
        const peer = value >>> 16;
        const vector = value & 0xffff;
        if (peer >= this.identity.maxPeers || vector >= this.identity.vectors) return null;
        return { type: 'ring', peer, vector };
      }
      case Register.STATE:
        return this.#setState(value);
      default:
        return null;
    }
  }

  /**
   * An interrupt has arrived, for a vector whose message can be sent. Returns whether to send it; there are no pending
   * interrupts, so one that is not sent is lost. In one-shot mode, delivery disables further ones. A device without the Bus
   * Master bit may not write to memory, so it sends no messages.
   */
  interrupt(): boolean {
    const { command, msixEnabled, oneShot } = this.configuration;
    if (this.#interruptControl === 0 || !msixEnabled || (command & pci.COMMAND_BUS_MASTER) === 0)
      return false;
    if (oneShot) this.#interruptControl = 0;
    return true;
  }

  /** Sets all registers to their values after reset; a second reset changes nothing. */
  reset(): DeviceAction | null {
    this.configuration.reset();
    this.#interruptControl = 0;
    return this.#setState(0);
  }

  #setState(value: number): DeviceAction | null {
    if (this.#state === value >>> 0) return null;
    this.#state = value >>> 0;
    return { type: 'state', value: this.#state };
  }
}
