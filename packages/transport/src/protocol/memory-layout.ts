/** Size of the state table in bytes: 1024 entries of 32 bits. Source: the host server's protocol. */
export const STATE_TABLE_SIZE = 4096;

/** The most peers of a device. Source: specification, "Register Region", Maximum Peers. */
export const MAX_PEERS = 65536;

/** The most peers of a host server: those that a state table of {@link STATE_TABLE_SIZE} bytes has room for. */
export const MAX_SERVER_PEERS = STATE_TABLE_SIZE / 4;

/** One section of the shared memory, mapped into this process. */
export interface Section {
  /** Its address in this process, for system calls that read or write frames in place. */
  readonly address: number;
  /** Its length in bytes. */
  readonly length: number;
  /** The same bytes, for typed arrays. Writable only if the specification lets this peer write there. */
  readonly buffer: ArrayBuffer;
}

/** Offsets and sizes of the sections, in bytes. Source: specification, "Shared Memory Region Layout". */
export interface MemoryLayout {
  /** Size of the whole shared memory region. */
  readonly size: number;
  /** Offset of the read/write section; the state table lies before it, at 0. */
  readonly readWriteOffset: number;
  /** Size of the read/write section; may be 0. */
  readonly readWriteSize: number;
  /** Offset of output section 0; that of peer n is n * outputSectionSize behind it. */
  readonly outputOffset: number;
  /** Size of each output section; may be 0. */
  readonly outputSectionSize: number;
  readonly maxPeers: number;
}

/** Sizes that cannot be laid out. The message names the size and the remedy. */
export class LayoutError extends Error {
  override readonly name = 'LayoutError';
}

/**
 * Lays out a shared memory of `size` bytes with `maxPeers` output sections of `outputSectionSize` bytes:
 * state table | read/write section | output sections. Throws {@link LayoutError} if sizes are not multiples of
 * `pageSize` bytes, the state table is too small for the peers, or the sections do not fit.
 */
export function memoryLayout(
  size: number,
  maxPeers: number,
  outputSectionSize: number,
  pageSize = 4096,
): MemoryLayout {
  if (!Number.isSafeInteger(maxPeers) || maxPeers < 2 || maxPeers > MAX_SERVER_PEERS) {
    throw new LayoutError(`${maxPeers} peers: the state table holds 2 to ${MAX_SERVER_PEERS} of them`);
  }
  if (!Number.isSafeInteger(size) || size < STATE_TABLE_SIZE || size % pageSize !== 0) {
    throw new LayoutError(`shared memory of ${size} bytes: must be a multiple of ${pageSize}, the page size`);
  }
  if (
    !Number.isSafeInteger(outputSectionSize) ||
    outputSectionSize < 0 ||
    outputSectionSize % pageSize !== 0
  ) {
    throw new LayoutError(
      `output sections of ${outputSectionSize} bytes: must be a multiple of ${pageSize}, the page size`,
    );
  }
  const readWriteSize = size - STATE_TABLE_SIZE - maxPeers * outputSectionSize;
  if (readWriteSize < 0) {
    const needed = STATE_TABLE_SIZE + maxPeers * outputSectionSize;
    throw new LayoutError(
      `shared memory of ${size} bytes is too small: ${maxPeers} output sections of ${outputSectionSize} bytes and the state table need ${needed}`,
    );
  }
  return {
    size,
    readWriteOffset: STATE_TABLE_SIZE,
    readWriteSize,
    outputOffset: STATE_TABLE_SIZE + readWriteSize,
    outputSectionSize,
    maxPeers,
  };
}
