import { closeFd } from '@ivshmem/linux';
import { type Mapping, mapShared } from '@ivshmem/linux/memory';
import { UnixSocket } from '@ivshmem/linux/socket';
import { clearEventFd, createEventFd, EPOLLIN, Epoll } from '@ivshmem/linux/wait';
import { Command, HEADER_SIZE, IrqIndex, Region } from './messages.ts';

/** The capabilities that QEMU 11.1 announces, 214 bytes with the headers. */
export const QEMU_CAPABILITIES =
  '{"capabilities": {"max_msg_fds": 16, "max_data_xfer_size": 1048576, "pgsizes": 4096, "max_dma_maps": 65535, "migration": {"pgsize": 4096, "max_bitmap_size": 268435456}, "write_multiple": true}}';

export interface Reply {
  readonly errno: number;
  readonly flags: number;
  readonly payload: Buffer;
  readonly fds: number[];
}

export interface RegionInfo {
  readonly size: number;
  readonly flags: number;
  readonly areas: { offset: number; size: number }[];
  /** Owned by the client; -1 if there is none. */
  readonly fd: number;
}

export function u32s(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [i, value] of values.entries()) bytes.writeUInt32LE(value >>> 0, i * 4);
  return bytes;
}

/**
 * What a VMM does with a vfio-user device, message by message as QEMU 11.1 does it. It blocks, so a device needs a thread of
 * its own, or is run by `serve` before each wait.
 */
export class VmmClient {
  readonly socket: UnixSocket;
  readonly #epoll = new Epoll();
  readonly #fds: number[] = [];
  readonly #mappings: Mapping[] = [];
  readonly #serve: () => void;
  #id = 0;

  constructor(path: string, serve: () => void = () => {}) {
    this.#serve = serve;
    this.socket = UnixSocket.connect(path);
    this.#epoll.add(this.socket.fd, EPOLLIN, () => {});
  }

  /** Blocks until `bytes` have come; null at the end of the stream. */
  receive(length: number, fds: number[]): Buffer | null {
    const bytes = Buffer.alloc(length);
    for (let filled = 0; filled < length; ) {
      const received = this.socket.receive(bytes.subarray(filled), fds);
      if (received === 0) return null;
      if (received > 0) filled += received;
      else this.#wait('reply');
    }
    return bytes;
  }

  #wait(what: string): void {
    this.#serve();
    if (this.#epoll.wait(10_000) === 0) throw new Error(`no ${what} in ten seconds`);
  }

  /** Sends a request without waiting for its reply. Returns its ID. */
  post(command: number, payload: Uint8Array = Buffer.alloc(0), fds: number[] = [], flags = 0): number {
    const id = this.#id++ & 0xffff;
    const header = u32s(id | (command << 16), HEADER_SIZE + payload.length, flags, 0);
    const bytes = Buffer.concat([header, payload]);
    for (let sent = 0; sent < bytes.length; )
      sent += this.socket.send(bytes.subarray(sent), sent === 0 ? fds : []);
    return id;
  }

  /** The reply to a request, whose header must come in one piece. */
  reply(id: number, command: number): Reply {
    const fds: number[] = [];
    const header = this.receive(HEADER_SIZE, fds);
    if (header === null) throw new Error('the server has closed the connection');
    if (header.readUInt16LE(0) !== id || header.readUInt16LE(2) !== command) {
      throw new Error(`reply ${header.toString('hex')} to request ${id}, command ${command}`);
    }
    const size = header.readUInt32LE(4);
    const payload = size > HEADER_SIZE ? this.receive(size - HEADER_SIZE, fds) : Buffer.alloc(0);
    this.#fds.push(...fds);
    return { flags: header.readUInt32LE(8), errno: header.readUInt32LE(12), payload: payload!, fds };
  }

  request(command: number, payload: Uint8Array = Buffer.alloc(0), fds: number[] = []): Reply {
    return this.reply(this.post(command, payload, fds), command);
  }

  /** The same for what must succeed. */
  expect(command: number, payload: Uint8Array = Buffer.alloc(0), fds: number[] = []): Reply {
    const reply = this.request(command, payload, fds);
    if (reply.flags !== 1 || reply.errno !== 0) throw new Error(`command ${command}: errno ${reply.errno}`);
    return reply;
  }

  version(): Reply {
    return this.expect(Command.VERSION, Buffer.from(`\0\0\0\0${QEMU_CAPABILITIES}\0`));
  }

  dmaMap(address: number, length: number, fds: number[] = []): void {
    const payload = Buffer.alloc(32);
    payload.writeUInt32LE(32, 0);
    payload.writeUInt32LE(3, 4);
    payload.writeBigUInt64LE(BigInt(address), 16);
    payload.writeBigUInt64LE(BigInt(length), 24);
    this.expect(Command.DMA_MAP, payload, fds);
  }

  /** In two steps if the region has capabilities. */
  regionInfo(index: number): RegionInfo {
    const ask = (argsz: number) =>
      this.expect(Command.DEVICE_GET_REGION_INFO, u32s(argsz, 0, index, 0, 0, 0, 0, 0));
    let { payload, fds } = ask(32);
    const argsz = payload.readUInt32LE(0);
    if (argsz > 32) {
      if (payload.length !== 32 || fds.length !== 0) throw new Error('the first reply is too long');
      ({ payload, fds } = ask(argsz));
      if (payload.length !== argsz || fds.length !== 1) throw new Error('the second reply is incomplete');
    }
    const areas = [];
    for (let at = 48; at < payload.length; at += 16) {
      areas.push({
        offset: Number(payload.readBigUInt64LE(at)),
        size: Number(payload.readBigUInt64LE(at + 8)),
      });
    }
    return {
      size: Number(payload.readBigUInt64LE(16)),
      flags: payload.readUInt32LE(4),
      areas,
      fd: fds[0] ?? -1,
    };
  }

  /** All that QEMU does until its guest runs. Returns what it learns of BAR 2. */
  start(): RegionInfo {
    this.version();
    this.dmaMap(0, 0x10000000);
    this.dmaMap(0xfffc0000, 0x40000);
    this.expect(Command.DEVICE_GET_INFO, u32s(16, 0, 0, 0));
    const [, , bar2] = [0, 1, 2, 3, 4, 5, 7].map((index) => this.regionInfo(index));
    if (this.request(Command.DEVICE_GET_IRQ_INFO, u32s(16, 0, IrqIndex.ERR, 0)).errno !== 22) {
      throw new Error('index 3 has interrupts');
    }
    this.read(Region.CONFIGURATION, 0, 256);
    for (const bytes of [u32s(0xfffff800), u32s(0)]) {
      this.read(Region.CONFIGURATION, 0x30, 4);
      this.write(Region.CONFIGURATION, 0x30, bytes);
    }
    for (const offset of [0x10, 0x14, 0x18, 0x5c, 0x60]) this.read(Region.CONFIGURATION, offset, 4);
    this.read(Region.CONFIGURATION, 0x5a, 2);
    this.expect(Command.DEVICE_GET_IRQ_INFO, u32s(16, 0, IrqIndex.MSIX, 0));
    this.read(Region.CONFIGURATION, 0x3d, 1);
    this.systemReset();
    return bar2!;
  }

  /** What comes with a reset of the machine. */
  systemReset(): void {
    const command = this.read(Region.CONFIGURATION, 0x04, 2).readUInt16LE();
    const cleared = Buffer.alloc(2);
    cleared.writeUInt16LE(command & ~0x0407);
    this.write(Region.CONFIGURATION, 0x04, cleared);
    this.expect(Command.DEVICE_RESET);
    this.read(Region.CONFIGURATION, 0x3d, 1);
    for (let bar = 0; bar < 6; bar++) this.write(Region.CONFIGURATION, 0x10 + 4 * bar, u32s(0));
  }

  read(region: number, offset: number, count: number): Buffer {
    const { payload } = this.expect(Command.REGION_READ, accessOf(offset, region, count));
    if (payload.length !== 16 + count)
      throw new Error(`${payload.length - 16} bytes read instead of ${count}`);
    return payload.subarray(16);
  }

  write(region: number, offset: number, bytes: Uint8Array): void {
    const access = accessOf(offset, region, bytes.length);
    const { payload } = this.expect(Command.REGION_WRITE, Buffer.concat([access, bytes]));
    if (!payload.equals(access)) throw new Error(`reply ${payload.toString('hex')} to a write`);
  }

  readRegister(offset: number): number {
    return this.read(Region.BAR0, offset, 4).readUInt32LE();
  }

  writeRegister(offset: number, value: number): void {
    this.write(Region.BAR0, offset, u32s(value));
  }

  /** What a driver does to get interrupts on all vectors: MSI-X and Bus Master on. Returns the eventfds. */
  enableMsix(vectors: number): number[] {
    this.write(Region.CONFIGURATION, 0x5a, Buffer.from([0x03, 0xc0]));
    this.setIrqs(0x24, 0, 1);
    this.write(Region.CONFIGURATION, 0x04, Buffer.from([0x06, 0x04]));
    this.write(Region.CONFIGURATION, 0x5a, Buffer.from([0x03, 0x80]));
    return Array.from({ length: vectors }, (_, vector) => this.bind(vector));
  }

  /** Binds an eventfd to a vector. */
  bind(vector: number): number {
    const fd = createEventFd();
    this.#fds.push(fd);
    this.#epoll.add(fd, EPOLLIN, () => {});
    this.setIrqs(0x24, vector, 1, [fd]);
    return fd;
  }

  setIrqs(
    flags: number,
    start: number,
    count: number,
    fds: number[] = [],
    index: number = IrqIndex.MSIX,
  ): void {
    this.expect(Command.DEVICE_SET_IRQS, u32s(20, flags, index, start, count), fds);
  }

  /** Blocks until an interrupt has come. */
  awaitInterrupt(fd: number): void {
    while (!clearEventFd(fd)) this.#wait('interrupt');
  }

  /** Maps the areas that the device says can be mapped, as QEMU does. */
  map({ areas, fd }: RegionInfo): Mapping[] {
    const mappings = areas.map(({ offset, size }) => mapShared(fd, size, { offset, write: true }));
    this.#mappings.push(...mappings);
    return mappings;
  }

  close(): void {
    this.socket.close();
    this.#epoll.close();
    for (const mapping of this.#mappings.splice(0)) mapping.close();
    for (const fd of this.#fds.splice(0)) closeFd(fd);
  }
}

export function accessOf(offset: number | bigint, region: number, count: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64LE(BigInt(offset), 0);
  bytes.writeUInt32LE(region, 8);
  bytes.writeUInt32LE(count >>> 0, 12);
  return bytes;
}
