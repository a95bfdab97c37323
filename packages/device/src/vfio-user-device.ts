import { closeFd, SystemCallError } from '@ivshmem/linux';
import { isEventFd } from '@ivshmem/linux/wait';
import type { HostPort } from '@ivshmem/transport';
import { pci } from '@ivshmem/transport/protocol';
import { Counter } from './counters.ts';
import { CONFIGURATION_SIZE, memoryRegionSize, msixRegionSize } from './ivshmem/configuration-space.ts';
import { type DeviceAction, DeviceModel } from './ivshmem/device-model.ts';
import { type MappedArea, MemoryBar, mappedAreas } from './ivshmem/memory-bar.ts';
import type { Request } from './vfio-user/connection.ts';
import { InterruptVectors } from './vfio-user/interrupt-vectors.ts';
import {
  Command,
  checkDma,
  commandName,
  dataOf,
  decodeIrqInfo,
  decodeRegionAccess,
  decodeRegionInfo,
  decodeSetIrqs,
  decodeVersion,
  encodeDeviceInfo,
  encodeErrorReply,
  encodeIrqInfo,
  encodeRegionInfo,
  encodeRegionRead,
  encodeRegionWrite,
  encodeReply,
  encodeVersion,
  IRQ_ACTION_TRIGGER,
  IRQ_DATA_EVENTFD,
  IRQ_DATA_NONE,
  IRQ_INDEX_COUNT,
  IrqIndex,
  REGION_COUNT,
  Region,
  type RegionAccess,
  VfioUserError,
} from './vfio-user/messages.ts';

const EIO = 5;
const EINVAL = 22;
const ENOSYS = 38;

/** A reply, and the descriptors that go with it, which stay their owner's. */
export interface Reply {
  readonly bytes: Uint8Array;
  readonly fds: readonly number[];
}

/** A request that cannot be granted; the client is told by errno, and stays. */
class Refusal extends Error {
  readonly errno: number;
  constructor(errno: number) {
    super(`errno ${errno}`);
    this.errno = errno;
  }
}

export interface VfioUserDeviceOptions {
  /** Traps accesses to the output sections of others. */
  readonly isolate: boolean;
  /** See {@link ./counters.ts}. */
  readonly counters: Float64Array;
  /** Deals with everything that has come for the port: it came before the access that is about to be made. */
  readonly settle: () => void;
}

/**
 * A device in the hands of one VMM: its requests become accesses to the model, the model's actions doorbells and
 * states of the port, the port's interrupts those of the VMM.
 */
export class VfioUserDevice {
  readonly #port: HostPort;
  readonly #model: DeviceModel;
  readonly #memory: MemoryBar;
  readonly #areas: readonly MappedArea[];
  readonly #vectors = new InterruptVectors();
  readonly #counters: Float64Array;
  readonly #settle: () => void;
  #negotiated = false;

  /** A device after reset. The port stays the caller's, and outlives it. */
  constructor(port: HostPort, { isolate, counters, settle }: VfioUserDeviceOptions) {
    this.#port = port;
    this.#model = new DeviceModel(port);
    this.#memory = new MemoryBar(port);
    this.#areas = mappedAreas(port.layout, port.id, isolate);
    this.#counters = counters;
    this.#settle = settle;
  }

  /** The client has said which version it speaks. */
  get negotiated(): boolean {
    return this.#negotiated;
  }

  /**
   * Does what a request says, and takes over its descriptors. Returns the reply. Throws {@link VfioUserError} for what
   * no client should send: disconnect it then.
   */
  handle(request: Request): Reply {
    const { header, fds } = request;
    try {
      if (!this.#negotiated && header.command !== Command.VERSION) {
        throw new VfioUserError(`${commandName(header.command)} before VERSION`);
      }
      const fdsAllowed =
        header.command === Command.DEVICE_SET_IRQS ? fds.length : header.command === Command.DMA_MAP ? 1 : 0;
      if (fds.length > fdsAllowed) {
        throw new VfioUserError(`${commandName(header.command)} with ${fds.length} descriptors`);
      }
      return this.#dispatch(request);
    } catch (error) {
      if (error instanceof VfioUserError) throw error;
      if (error instanceof Refusal) return reply(encodeErrorReply(header, error.errno));
      // A section that cannot be mapped: the guest reads all ones, and everything else goes on.
      if (error instanceof SystemCallError) return reply(encodeErrorReply(header, EIO));
      throw error;
    } finally {
      for (const fd of fds) closeFd(fd);
    }
  }

  #dispatch({ header, payload, fds }: Request): Reply {
    switch (header.command) {
      case Command.VERSION:
        if (this.#negotiated) throw new VfioUserError('VERSION twice');
        decodeVersion(payload);
        this.#negotiated = true;
        return reply(encodeVersion(header));
      case Command.DMA_MAP:
        checkDma(header.command, payload);
        return reply(encodeReply(header));
      case Command.DMA_UNMAP:
        checkDma(header.command, payload);
        return reply(encodeReply(header, payload));
      case Command.DEVICE_GET_INFO:
        return reply(encodeDeviceInfo(header, payload));
      case Command.DEVICE_GET_REGION_INFO: {
        const asked = decodeRegionInfo(payload);
        if (asked.index >= REGION_COUNT || asked.argsz < 32) throw new Refusal(EINVAL);
        const areas = asked.index === Region.BAR2 ? this.#areas : [];
        const { bytes, complete } = encodeRegionInfo(header, asked, this.#regionSize(asked.index), areas);
        return reply(bytes, complete ? [this.#port.memoryFd] : []);
      }
      case Command.DEVICE_GET_IRQ_INFO: {
        const index = decodeIrqInfo(payload);
        // QEMU takes an error to mean that there is no such interrupt, but warns where its count is 0.
        if (index >= IrqIndex.ERR) throw new Refusal(EINVAL);
        return reply(encodeIrqInfo(header, index, index === IrqIndex.MSIX ? this.#port.vectors : 0));
      }
      case Command.DEVICE_SET_IRQS:
        this.#setIrqs(payload, fds);
        return reply(encodeReply(header));
      case Command.REGION_READ: {
        const access = this.#checkAccess(decodeRegionAccess(header.command, payload));
        const { bytes, data } = encodeRegionRead(header, payload, access.count);
        this.#read(access, data);
        return reply(bytes);
      }
      case Command.REGION_WRITE:
        this.#write(this.#checkAccess(decodeRegionAccess(header.command, payload)), dataOf(payload));
        return reply(encodeRegionWrite(header, payload));
      case Command.DEVICE_RESET:
        this.#counters[Counter.resets]!++;
        this.reset();
        return reply(encodeReply(header));
      default:
        throw new Refusal(ENOSYS);
    }
  }

  #regionSize(region: number): number {
    switch (region) {
      case Region.BAR0:
        return pci.REGISTER_REGION_SIZE;
      case Region.BAR1:
        return msixRegionSize(this.#port.vectors);
      case Region.BAR2:
        return memoryRegionSize(this.#port.layout);
      case Region.CONFIGURATION:
        return CONFIGURATION_SIZE;
      default:
        return 0;
    }
  }

  #checkAccess(access: RegionAccess): RegionAccess {
    if (access.offset + access.count > this.#regionSize(access.region)) throw new Refusal(EINVAL);
    return access;
  }

  #read({ region, offset, count }: RegionAccess, data: Uint8Array): void {
    switch (region) {
      case Region.CONFIGURATION:
        this.#counters[Counter.configurationReads]!++;
        this.#model.configuration.read(offset, data);
        return;
      case Region.BAR0: {
        this.#counters[Counter.registerReads]!++;
        if (count !== 4) return;
        // In one-shot mode, an interrupt that has come changes what is read.
        this.#settle();
        new DataView(data.buffer, data.byteOffset).setUint32(
          0,
          this.#model.readRegister(offset, count),
          true,
        );
        return;
      }
      case Region.BAR2:
        this.#counters[Counter.memoryReads]!++;
        this.#memory.read(offset, data);
        return;
      // BAR 1: its table is the VMM's own business, and of its pending bits there are none.
    }
  }

  #write({ region, offset, count }: RegionAccess, data: Uint8Array): void {
    switch (region) {
      case Region.CONFIGURATION:
        this.#counters[Counter.configurationWrites]!++;
        this.#settle();
        this.#model.configuration.write(offset, data);
        return;
      case Region.BAR0: {
        this.#counters[Counter.registerWrites]!++;
        if (count !== 4) return;
        // What came while interrupts were disabled is lost, also if they are being enabled right now.
        this.#settle();
        const value = new DataView(data.buffer, data.byteOffset).getUint32(0, true);
        if (offset === pci.Register.DOORBELL) this.#counters[Counter.doorbells]!++;
        this.#perform(this.#model.writeRegister(offset, count, value), offset === pci.Register.DOORBELL);
        return;
      }
      case Region.BAR2:
        this.#counters[Counter.memoryWrites]!++;
        this.#memory.write(offset, data);
    }
  }

  #perform(action: DeviceAction | null, doorbell = false): void {
    if (action?.type === 'state') this.#port.state = action.value;
    else if (action?.type === 'ring' && this.#port.ring(action.peer, action.vector)) return;
    if (doorbell) this.#counters[Counter.doorbellsWithoutEffect]!++;
  }

  #setIrqs(payload: Uint8Array, fds: number[]): void {
    const { flags, index, start, count } = decodeSetIrqs(payload);
    const { vectors } = this.#port;
    if (index >= IRQ_INDEX_COUNT) throw new Refusal(EINVAL);
    const disableAll = flags === (IRQ_DATA_NONE | IRQ_ACTION_TRIGGER) && count === 0;
    if (disableAll && fds.length === 0) {
      if (index === IrqIndex.MSIX) this.#vectors.clear();
      return;
    }
    if (index !== IrqIndex.MSIX || flags !== (IRQ_DATA_EVENTFD | IRQ_ACTION_TRIGGER)) {
      if (fds.length > 0 && (flags & IRQ_DATA_EVENTFD) === 0) {
        throw new VfioUserError('DEVICE_SET_IRQS with descriptors that its flags know nothing of');
      }
      throw new Refusal(EINVAL);
    }
    if (fds.length !== 0 && fds.length !== count) {
      throw new VfioUserError(`DEVICE_SET_IRQS for ${count} interrupts with ${fds.length} descriptors`);
    }
    if (start + count > vectors) throw new Refusal(EINVAL);
    for (const fd of fds) {
      // Written to with this process's rights: nothing but an eventfd will do.
      if (!isEventFd(fd)) throw new VfioUserError('DEVICE_SET_IRQS with a descriptor that is no eventfd');
    }
    const taken = fds.splice(0);
    for (let i = 0; i < count; i++) this.#vectors.bind(start + i, taken[i] ?? null);
  }

  /** An interrupt of the port. */
  interrupt(vector: number): void {
    const sent = this.#vectors.isBound(vector) && this.#model.interrupt() && this.#vectors.signal(vector);
    this.#counters[sent ? Counter.interrupts : Counter.interruptsDropped]!++;
  }

  /** Device reset; what the VMM has bound stays bound. */
  reset(): void {
    this.#settle();
    this.#perform(this.#model.reset());
  }

  /** The VMM is gone: the state goes to 0, its eventfds are closed. */
  close(): void {
    this.#vectors.clear();
    this.#perform(this.#model.reset());
  }
}

function reply(bytes: Uint8Array, fds: readonly number[] = []): Reply {
  return { bytes, fds };
}
