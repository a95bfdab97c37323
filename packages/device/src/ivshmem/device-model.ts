import { pci } from '@ivshmem/transport/protocol';
import { CONFIGURATION_SIZE, ConfigurationSpace, type DeviceIdentity } from './configuration-space.ts';

const { Register } = pci;

/** What the caller has to do after a register was written. */
export type DeviceAction =
  /** Interrupt a peer, perhaps this one itself. The peer may not exist. */
  | { readonly type: 'ring'; readonly peer: number; readonly vector: number }
  /** Put a changed state into the state table, then interrupt all other peers on vector 0. */
  | { readonly type: 'state'; readonly value: number };

/** Positions in the words behind the configuration space. */
const INTERRUPT_CONTROL = 0;
const STATE = 1;

/** The registers of a device that is in use. */
export interface RegistersInUse {
  /** `DeviceModel.REGISTERS_SIZE` bytes at a multiple of 4, where an earlier model has kept its registers. */
  readonly inUse: Uint8Array;
}

/**
 * The ivshmem v2 PCI device as its guest sees it, without the shared memory: register accesses go in, actions come out. It
 * depends on no transport, makes no system call and reads no clock. Offsets are those of `pci.Register` in
 * `@ivshmem/transport/protocol`.
 * Source: specification, "Guest-side Programming Model".
 */
export class DeviceModel {
  /** Size of all registers that have a state, in bytes. */
  static readonly REGISTERS_SIZE = CONFIGURATION_SIZE + 8;
  readonly identity: DeviceIdentity;
  readonly configuration: ConfigurationSpace;
  readonly #words: Uint32Array;

  /**
   * A device after reset, which keeps its registers in `registers`, or a device that is in use. Throws RangeError, see
   * {@link ConfigurationSpace}, and Error if what is said to be in use is another device.
   */
  constructor(
    identity: DeviceIdentity,
    registers: Uint8Array | RegistersInUse = new Uint8Array(DeviceModel.REGISTERS_SIZE),
  ) {
    const bytes = 'inUse' in registers ? registers.inUse : registers;
    this.identity = identity;
    this.configuration = new ConfigurationSpace(identity, bytes.subarray(0, CONFIGURATION_SIZE));
    this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset + CONFIGURATION_SIZE, 2);
    if (bytes === registers) this.reset();
    else if (!this.configuration.isValid) throw new Error('the registers are those of another device');
  }

  /** State register. */
  get state(): number {
    return this.#words[STATE]!;
  }

  get #interruptControl(): number {
    return this.#words[INTERRUPT_CONTROL]!;
  }

  set #interruptControl(value: number) {
    this.#words[INTERRUPT_CONTROL] = value;
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
        return this.state;
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

  /**
   * Whether an interrupt that {@link interrupt} has taken may not have been sent, if the process was killed at any point: it is
   * to be sent again. In one-shot mode, it may have disabled all others.
   */
  get mayHaveLostInterrupt(): boolean {
    const { command, msixEnabled, oneShot } = this.configuration;
    return (
      (this.#interruptControl !== 0 || oneShot) && msixEnabled && (command & pci.COMMAND_BUS_MASTER) !== 0
    );
  }

  /** Sets all registers to their values after reset; a second reset changes nothing. */
  reset(): DeviceAction | null {
    this.configuration.reset();
    this.#interruptControl = 0;
    return this.#setState(0);
  }

  #setState(value: number): DeviceAction | null {
    if (this.state === value >>> 0) return null;
    this.#words[STATE] = value;
    return { type: 'state', value: this.state };
  }
}
