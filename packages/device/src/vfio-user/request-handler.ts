import { constants } from 'node:os';
import { closeFd, SystemCallError } from '@ivshmem/linux';
import { isEventFd } from '@ivshmem/linux/wait';
import type { Reply, Request } from './connection.ts';
import type { InterruptVectors } from './interrupt-vectors.ts';
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
} from './messages.ts';
import type { PciDevice } from './pci-device.ts';

const { EINVAL, EIO, ENOSYS } = constants.errno;

/** A request that is answered with an errno. The client stays connected. */
class RequestError extends Error {
  readonly errno: number;
  constructor(errno: number) {
    super(`errno ${errno}`);
    this.errno = errno;
  }
}

/** Answers the requests of one VMM: turns them into accesses to a device, and binds its interrupt vectors. */
export class RequestHandler {
  readonly #device: PciDevice;
  readonly #vectors: InterruptVectors;
  #negotiated: boolean;

  /** Both stay the caller's. `negotiated`: the client has sent VERSION to an earlier process. */
  constructor(device: PciDevice, vectors: InterruptVectors, negotiated = false) {
    this.#device = device;
    this.#vectors = vectors;
    this.#negotiated = negotiated;
  }

  /** The client has sent VERSION. */
  get negotiated(): boolean {
    return this.#negotiated;
  }

  /**
   * Executes a request, and takes ownership of its descriptors. Returns the reply. Throws {@link VfioUserError} for what no
   * client should send: disconnect it then.
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
      if (error instanceof RequestError) return reply(encodeErrorReply(header, error.errno));
      // Memory that cannot be mapped, for example: the guest reads all ones, and the session continues.
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
      // The device does no DMA: the guest's memory is not mapped, and its descriptor is closed.
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
        if (asked.index >= REGION_COUNT || asked.argsz < 32) throw new RequestError(EINVAL);
        const mapped = this.#device.bars[asked.index]?.mapped;
        const areas = mapped?.areas ?? [];
        const { bytes, complete } = encodeRegionInfo(header, asked, this.#regionSize(asked.index), areas);
        return reply(bytes, complete && mapped !== undefined ? [mapped.fd] : []);
      }
      case Command.DEVICE_GET_IRQ_INFO: {
        const index = decodeIrqInfo(payload);
        // QEMU takes an error to mean that there is no such interrupt, but prints a warning if its count is 0.
        if (index >= IrqIndex.ERR) throw new RequestError(EINVAL);
        return reply(encodeIrqInfo(header, index, index === IrqIndex.MSIX ? this.#vectors.count : 0));
      }
      case Command.DEVICE_SET_IRQS:
        this.#setIrqs(payload, fds);
        return reply(encodeReply(header));
      case Command.REGION_READ: {
        const access = this.#checkAccess(decodeRegionAccess(header.command, payload));
        const { bytes, data } = encodeRegionRead(header, payload, access.count);
        if (access.region === Region.CONFIGURATION) this.#device.readConfiguration(access.offset, data);
        else this.#device.readBar(access.region, access.offset, data);
        return reply(bytes);
      }
      case Command.REGION_WRITE: {
        const access = this.#checkAccess(decodeRegionAccess(header.command, payload));
        const data = dataOf(payload);
        if (access.region === Region.CONFIGURATION) this.#device.writeConfiguration(access.offset, data);
        else this.#device.writeBar(access.region, access.offset, data);
        return reply(encodeRegionWrite(header, payload));
      }
      case Command.DEVICE_RESET:
        this.#device.reset();
        return reply(encodeReply(header));
      default:
        throw new RequestError(ENOSYS);
    }
  }

  /** In bytes; 0 for a region that the device does not have. */
  #regionSize(region: number): number {
    if (region === Region.CONFIGURATION) return this.#device.configurationSize;
    return this.#device.bars[region]?.size ?? 0;
  }

  #checkAccess(access: RegionAccess): RegionAccess {
    const size = this.#regionSize(access.region);
    if (access.offset + access.count > size) throw new RequestError(EINVAL);
    return access;
  }

  #setIrqs(payload: Uint8Array, fds: number[]): void {
    const { flags, index, start, count } = decodeSetIrqs(payload);
    if (index >= IRQ_INDEX_COUNT) throw new RequestError(EINVAL);
    const disableAll = flags === (IRQ_DATA_NONE | IRQ_ACTION_TRIGGER) && count === 0;
    if (disableAll && fds.length === 0) {
      if (index === IrqIndex.MSIX) this.#vectors.clear();
      return;
    }
    if (index !== IrqIndex.MSIX || flags !== (IRQ_DATA_EVENTFD | IRQ_ACTION_TRIGGER)) {
      if (fds.length > 0 && (flags & IRQ_DATA_EVENTFD) === 0) {
        throw new VfioUserError('DEVICE_SET_IRQS with descriptors, but without the flag for them');
      }
      throw new RequestError(EINVAL);
    }
    if (fds.length !== 0 && fds.length !== count) {
      throw new VfioUserError(`DEVICE_SET_IRQS for ${count} interrupts with ${fds.length} descriptors`);
    }
    if (start + count > this.#vectors.count) throw new RequestError(EINVAL);
    for (const fd of fds) {
      // This process writes to it with its own rights, so only an eventfd is accepted.
      if (!isEventFd(fd)) throw new VfioUserError('DEVICE_SET_IRQS with a descriptor that is no eventfd');
    }
    const taken = fds.splice(0);
    for (let i = 0; i < count; i++) this.#vectors.bind(start + i, taken[i] ?? null);
  }
}

function reply(bytes: Uint8Array, fds: readonly number[] = []): Reply {
  return { bytes, fds };
}
