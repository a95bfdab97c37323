import { closeFd } from '../fd.ts';
import { OwnedFd } from '../owned-fd.ts';
import { createMemfd, F_SEAL_GROW, F_SEAL_SHRINK, fileLength, isRegularFile, sealsOf } from './memfd.ts';
import { type Mapping, mapShared } from './memory.ts';

/** "ivshmst" and a format number, as little-endian bytes. */
const MAGIC = 0x0174736d68737669n;
/** {u64 magic, u32 version, u32 size of the data, char kind[32], 16 bytes reserved}. */
const HEADER_SIZE = 64;
const KIND_OFFSET = 16;
const KIND_SIZE = 32;
/** A file with more data than this is rejected before it is mapped. In bytes. */
const MAX_DATA = 1 << 28;

/**
 * State of a process that its successor takes over: a memfd of constant size, mapped, with a header that says what it is.
 * Store {@link fd} in a descriptor store. A write to the mapping is in the file at once, also if the process is killed next.
 */
export class StateMemory extends OwnedFd {
  /** What the state is of, such as `device`. */
  readonly kind: string;
  /** The format of the data. */
  readonly version: number;
  /** The whole file, writable. The data begin at {@link offset}. */
  readonly mapping: Mapping;
  /** Where the data begin in the mapping, in bytes; a multiple of 64. */
  readonly offset = HEADER_SIZE;
  /** Size of the data in bytes. */
  readonly size: number;

  private constructor(fd: number, kind: string, version: number, size: number) {
    super(fd);
    this.kind = kind;
    this.version = version;
    this.size = size;
    this.mapping = mapShared(fd, HEADER_SIZE + size, { write: true, subject: `state of ${kind}` });
  }

  /**
   * Creates zeroed state of `size` bytes. `kind`: 1 to 32 ASCII characters; `version`: that of the data's format, an u32.
   * Throws `SystemCallError`.
   */
  static create(kind: string, version: number, size: number): StateMemory {
    const fd = createMemfd(`ivshmem-state-${kind}`, HEADER_SIZE + size);
    try {
      const state = new StateMemory(fd, kind, version, size);
      const { buffer } = state.mapping;
      new Uint8Array(buffer, KIND_OFFSET, KIND_SIZE).set(Buffer.from(kind, 'latin1'));
      new Uint32Array(buffer, 8, 2).set([version, size]);
      new BigUint64Array(buffer, 0, 1)[0] = MAGIC;
      return state;
    } catch (error) {
      closeFd(fd);
      throw error;
    }
  }

  /**
   * Takes ownership of a descriptor of {@link create} in an earlier process. Returns in one line why it is unusable, having
   * closed it: another kind of file, not sealed, another kind of state, version or size. With `size`, the data must have
   * exactly that. The content of the data is for the caller to check.
   */
  static adopt(fd: number, kind: string, version: number, size?: number): StateMemory | string {
    const reason = problemOf(fd, kind, version, size);
    if (reason === null) {
      try {
        return new StateMemory(fd, kind, version, fileLength(fd) - HEADER_SIZE);
      } catch (error) {
        closeFd(fd);
        return (error as Error).message;
      }
    }
    closeFd(fd);
    return `the stored state of ${kind} ${reason}`;
  }

  protected override release(): void {
    this.mapping.close();
  }
}

function problemOf(fd: number, kind: string, version: number, size: number | undefined): string | null {
  const seals = F_SEAL_SHRINK | F_SEAL_GROW;
  if (!isRegularFile(fd) || (sealsOf(fd) & seals) !== seals) return 'is not in a sealed memfd';
  const data = fileLength(fd) - HEADER_SIZE;
  if (data < 0 || data > MAX_DATA) return `has ${data + HEADER_SIZE} bytes`;
  using header = mapShared(fd, HEADER_SIZE, { subject: `state of ${kind}` });
  if (new BigUint64Array(header.buffer, 0, 1)[0] !== MAGIC) return 'has no header';
  const [foundVersion, foundSize] = new Uint32Array(header.buffer, 8, 2);
  const name = Buffer.from(header.buffer, KIND_OFFSET, KIND_SIZE).toString('latin1').replace(/\0+$/, '');
  if (name !== kind) return 'is that of something else';
  if (foundVersion !== version)
    return `has version ${foundVersion}, and this program reads version ${version}`;
  if (foundSize !== data) return `has ${data} bytes instead of ${foundSize}`;
  if (size !== undefined && data !== size) return `has ${data} bytes instead of ${size}`;
  return null;
}
