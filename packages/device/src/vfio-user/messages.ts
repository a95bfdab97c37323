import type { MappedArea } from './pci-device.ts';

// Messages of vfio-user 0.0, as a server sees them: requests are decoded, replies encoded. Little-endian, each behind a
// header {u16 id, u16 command, u32 size with the header, u32 flags, u32 errno}.
// Source: QEMU, docs/interop/vfio-user.rst.

export const HEADER_SIZE = 16;
/** The most bytes of one access to a region; the protocol's default. */
export const MAX_DATA_TRANSFER = 1 << 20;
/** The largest message: a write of that many bytes. */
export const MAX_MESSAGE_SIZE = HEADER_SIZE + 16 + MAX_DATA_TRANSFER;
/** Descriptors that a client may send with one message. */
export const MAX_MESSAGE_FDS = 8;

export const Command = {
  VERSION: 1,
  DMA_MAP: 2,
  DMA_UNMAP: 3,
  DEVICE_GET_INFO: 4,
  DEVICE_GET_REGION_INFO: 5,
  DEVICE_GET_IRQ_INFO: 7,
  DEVICE_SET_IRQS: 8,
  REGION_READ: 9,
  REGION_WRITE: 10,
  DEVICE_RESET: 13,
} as const;

const names = new Map(Object.entries(Command).map(([name, value]) => [value as number, name]));

/** The name of a command, for messages to people. */
export function commandName(command: number): string {
  return names.get(command) ?? `command ${command}`;
}

const FLAG_TYPE = 0xf;
const FLAG_REPLY = 1;
const FLAG_NO_REPLY = 0x10;
const FLAG_ERROR = 0x20;

/** A client violated the protocol. The message names the violation. */
export class VfioUserError extends Error {
  override readonly name = 'VfioUserError';
}

export interface RequestHeader {
  readonly id: number;
  readonly command: number;
  /** Bytes, with the header. */
  readonly size: number;
  /** The client expects no reply, and none may be sent. */
  readonly noReply: boolean;
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Decodes {@link HEADER_SIZE} bytes. Throws {@link VfioUserError} if this is no request, or its size is out of range. */
export function decodeHeader(bytes: Uint8Array): RequestHeader {
  const view = viewOf(bytes);
  const id = view.getUint16(0, true);
  const command = view.getUint16(2, true);
  const size = view.getUint32(4, true);
  const flags = view.getUint32(8, true);
  if (size < HEADER_SIZE || size > MAX_MESSAGE_SIZE) {
    throw new VfioUserError(
      `${commandName(command)} of ${size} bytes: a message has ${HEADER_SIZE} to ${MAX_MESSAGE_SIZE}`,
    );
  }
  if ((flags & FLAG_TYPE) !== 0) {
    throw new VfioUserError(`${commandName(command)} with flags 0x${flags.toString(16)} is no request`);
  }
  return { id, command, size, noReply: (flags & FLAG_NO_REPLY) !== 0 };
}

/** A reply: the header, then `payload`. */
export function encodeReply(request: RequestHeader, payload: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(HEADER_SIZE + payload.length);
  encodeHeader(viewOf(bytes), request, bytes.length, FLAG_REPLY, 0);
  bytes.set(payload, HEADER_SIZE);
  return bytes;
}

/** An error reply, with a positive errno. */
export function encodeErrorReply(request: RequestHeader, errno: number): Uint8Array {
  const bytes = new Uint8Array(HEADER_SIZE);
  encodeHeader(viewOf(bytes), request, HEADER_SIZE, FLAG_REPLY | FLAG_ERROR, errno);
  return bytes;
}

function encodeHeader(view: DataView, request: RequestHeader, size: number, flags: number, errno: number) {
  view.setUint16(0, request.id, true);
  view.setUint16(2, request.command, true);
  view.setUint32(4, size, true);
  view.setUint32(8, flags, true);
  view.setUint32(12, errno, true);
}

/** The payload as a view. Throws {@link VfioUserError} if it does not have the size that its command needs. */
function payloadOf(command: number, payload: Uint8Array, least: number, most = Number.POSITIVE_INFINITY) {
  if (payload.length < least || payload.length > most) {
    throw new VfioUserError(
      `${commandName(command)} with ${payload.length} bytes of payload instead of ${least}`,
    );
  }
  return viewOf(payload);
}

/** VERSION: {u16 major, u16 minor, JSON with a final 0}. Throws {@link VfioUserError} for another major version than 0. */
export function decodeVersion(payload: Uint8Array): { major: number; minor: number } {
  const view = payloadOf(Command.VERSION, payload, 4);
  const major = view.getUint16(0, true);
  const minor = view.getUint16(2, true);
  if (major !== 0) throw new VfioUserError(`uses version ${major}.${minor} of vfio-user, not 0.0`);
  if (payload.length > 4 && payload.at(-1) !== 0) {
    throw new VfioUserError('VERSION with capabilities that do not end in 0');
  }
  return { major, minor };
}

const CAPABILITIES = Buffer.from(
  `${JSON.stringify({ capabilities: { max_msg_fds: MAX_MESSAGE_FDS, max_data_xfer_size: MAX_DATA_TRANSFER } })}\0`,
);

/** VERSION reply, 0.0. Capabilities are left out if the reply would be longer than the request. */
export function encodeVersion(request: RequestHeader): Uint8Array {
  const room = request.size - HEADER_SIZE - 4;
  const capabilities = room >= CAPABILITIES.length ? CAPABILITIES : new Uint8Array(0);
  const payload = new Uint8Array(4 + capabilities.length);
  payload.set(capabilities, 4);
  return encodeReply(request, payload);
}

/** DMA_MAP, DMA_UNMAP: a device without DMA checks only their size. Throws {@link VfioUserError}. */
export function checkDma(command: number, payload: Uint8Array): void {
  payloadOf(command, payload, command === Command.DMA_MAP ? 32 : 24);
}

const DEVICE_RESETTABLE = 1 << 0;
const DEVICE_PCI = 1 << 1;

/** DEVICE_GET_INFO reply: {u32 argsz, flags, regions, interrupt indexes}. Throws {@link VfioUserError}. */
export function encodeDeviceInfo(request: RequestHeader, payload: Uint8Array): Uint8Array {
  payloadOf(request.command, payload, 16);
  return encodeReply(request, words(16, DEVICE_RESETTABLE | DEVICE_PCI, REGION_COUNT, IRQ_INDEX_COUNT));
}

/** Indexes of regions: BARs 0 to 5, expansion ROM, configuration space, VGA. */
export const Region = { BAR0: 0, BAR1: 1, BAR2: 2, CONFIGURATION: 7 } as const;
export const REGION_COUNT = 9;

const REGION_READABLE = 1 << 0;
const REGION_WRITABLE = 1 << 1;
const REGION_MAPPABLE = 1 << 2;
const REGION_CAPABILITIES = 1 << 3;
const REGION_INFO_SIZE = 32;
const CAPABILITY_SPARSE_MMAP = 1;

/** DEVICE_GET_REGION_INFO: {u32 argsz, flags, index, capability offset, u64 size, offset}. Throws {@link VfioUserError}. */
export function decodeRegionInfo(payload: Uint8Array): { argsz: number; index: number } {
  const view = payloadOf(Command.DEVICE_GET_REGION_INFO, payload, REGION_INFO_SIZE);
  return { argsz: view.getUint32(0, true), index: view.getUint32(8, true) };
}

/**
 * DEVICE_GET_REGION_INFO reply for a region of `size` bytes (0: there is none) of which `areas` can be mapped. If the
 * client has no room for the areas (`argsz` bytes), they are left out, and it asks again with more. The file to map must be
 * sent with the reply if `complete` is true.
 */
export function encodeRegionInfo(
  request: RequestHeader,
  { argsz, index }: { argsz: number; index: number },
  size: number,
  areas: readonly MappedArea[],
): { bytes: Uint8Array; complete: boolean } {
  const mappable = areas.length > 0;
  const needed = mappable ? REGION_INFO_SIZE + 16 + 16 * areas.length : REGION_INFO_SIZE;
  const complete = argsz >= needed;
  const payload = new Uint8Array(complete ? needed : REGION_INFO_SIZE);
  const view = viewOf(payload);
  const access = size === 0 ? 0 : REGION_READABLE | REGION_WRITABLE;
  view.setUint32(0, needed, true);
  view.setUint32(4, access | (mappable ? REGION_MAPPABLE | REGION_CAPABILITIES : 0), true);
  view.setUint32(8, index, true);
  view.setUint32(12, mappable ? REGION_INFO_SIZE : 0, true);
  view.setBigUint64(16, BigInt(size), true);
  // The offset of the region in the file, at 24, is 0.
  if (mappable && complete) {
    view.setUint16(32, CAPABILITY_SPARSE_MMAP, true);
    view.setUint16(34, 1, true);
    view.setUint32(40, areas.length, true);
    for (const [i, area] of areas.entries()) {
      view.setBigUint64(48 + 16 * i, BigInt(area.offset), true);
      view.setBigUint64(56 + 16 * i, BigInt(area.size), true);
    }
  }
  return { bytes: encodeReply(request, payload), complete: mappable && complete };
}

/** Indexes of interrupts. */
export const IrqIndex = { INTX: 0, MSI: 1, MSIX: 2, ERR: 3, REQ: 4 } as const;
export const IRQ_INDEX_COUNT = 5;
const IRQ_EVENTFD = 1 << 0;

/** DEVICE_GET_IRQ_INFO: {u32 argsz, flags, index, count}. Returns the index. Throws {@link VfioUserError}. */
export function decodeIrqInfo(payload: Uint8Array): number {
  return payloadOf(Command.DEVICE_GET_IRQ_INFO, payload, 16).getUint32(8, true);
}

/** DEVICE_GET_IRQ_INFO reply for an index with `count` interrupts. */
export function encodeIrqInfo(request: RequestHeader, index: number, count: number): Uint8Array {
  return encodeReply(request, words(16, count === 0 ? 0 : IRQ_EVENTFD, index, count));
}

export const IRQ_DATA_NONE = 1 << 0;
export const IRQ_DATA_EVENTFD = 1 << 2;
export const IRQ_ACTION_TRIGGER = 1 << 5;

/** An operation on `count` interrupts of an index, from `start` on. */
export interface SetIrqs {
  /** One of IRQ_DATA_*, and one of IRQ_ACTION_*. */
  readonly flags: number;
  readonly index: number;
  readonly start: number;
  readonly count: number;
}

/** DEVICE_SET_IRQS: {u32 argsz, flags, index, start, count}. Throws {@link VfioUserError}. */
export function decodeSetIrqs(payload: Uint8Array): SetIrqs {
  const view = payloadOf(Command.DEVICE_SET_IRQS, payload, 20);
  return {
    flags: view.getUint32(4, true),
    index: view.getUint32(8, true),
    start: view.getUint32(12, true),
    count: view.getUint32(16, true),
  };
}

/** An access to a region, in bytes. */
export interface RegionAccess {
  /** Not exact above 2^53, but never rounded to less than that. */
  readonly offset: number;
  readonly region: number;
  readonly count: number;
}

const ACCESS_SIZE = 16;

/** REGION_READ, REGION_WRITE: {u64 offset, u32 region, u32 count}, and the bytes of a write. Throws {@link VfioUserError}. */
export function decodeRegionAccess(command: number, payload: Uint8Array): RegionAccess {
  const view = payloadOf(command, payload, ACCESS_SIZE);
  const count = view.getUint32(12, true);
  if (count > MAX_DATA_TRANSFER) {
    throw new VfioUserError(`${commandName(command)} of ${count} bytes: at most ${MAX_DATA_TRANSFER}`);
  }
  const size = command === Command.REGION_WRITE ? ACCESS_SIZE + count : ACCESS_SIZE;
  payloadOf(command, payload, size, size);
  return { offset: Number(view.getBigUint64(0, true)), region: view.getUint32(8, true), count };
}

/** The bytes of a REGION_WRITE. */
export function dataOf(payload: Uint8Array): Uint8Array {
  return payload.subarray(ACCESS_SIZE);
}

/** REGION_READ reply. The caller fills in `data`, its `count` bytes, which are 0. */
export function encodeRegionRead(
  request: RequestHeader,
  payload: Uint8Array,
  count: number,
): { bytes: Uint8Array; data: Uint8Array } {
  const reply = new Uint8Array(ACCESS_SIZE + count);
  reply.set(payload.subarray(0, ACCESS_SIZE));
  const bytes = encodeReply(request, reply);
  return { bytes, data: bytes.subarray(HEADER_SIZE + ACCESS_SIZE) };
}

/** REGION_WRITE reply. */
export function encodeRegionWrite(request: RequestHeader, payload: Uint8Array): Uint8Array {
  return encodeReply(request, payload.subarray(0, ACCESS_SIZE));
}

function words(...values: number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(values).buffer);
}
