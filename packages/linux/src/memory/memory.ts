import { constants } from 'node:buffer';
import { fstatSync } from 'node:fs';
import { constants as os } from 'node:os';
import koffi from 'koffi';
import { check, SystemCallError } from '../errors.ts';
import * as libc from '../libc.ts';

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_ANONYMOUS = 0x20;
const MAP_FAILED = 2 ** 64;
const SC_PAGESIZE = 30;
const { EFBIG } = os.errno;
/** Minimum page size in bytes. Some machines have larger pages only. */
const SMALLEST_PAGE = 4096;

/** The size of a mappable page, in bytes. */
export const PAGE_SIZE: number = libc.sysconf(SC_PAGESIZE);

/**
 * Memory mapped into this process, both as an address for system calls and as an ArrayBuffer for typed arrays.
 *
 * A view cannot be sent to another thread; each thread creates its own mapping. After {@link close} no view of `buffer` may be
 * used: the addresses are unmapped, and an access kills the process with SIGSEGV. So the caller of close() must own all views.
 */
export class Mapping {
  /** Its address in this process. */
  readonly address: number;
  /** Its length in bytes. */
  readonly length: number;
  /** The same bytes, for typed arrays. */
  readonly buffer: ArrayBuffer;
  readonly #start: number;
  readonly #size: number;
  #mapped = true;

  /** Takes ownership of `size` bytes mapped at `start`; the mapping is the `length` bytes from `address` on. */
  constructor(address: number, length: number, start = address, size = length) {
    this.address = address;
    this.length = length;
    this.buffer = koffi.view(address, length);
    this.#start = start;
    this.#size = size;
  }

  /** Unmaps the memory. Calling it again has no effect. */
  close(): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    libc.munmap(this.#start, this.#size);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function checkLength(length: number, subject: string): void {
  if (length <= constants.MAX_LENGTH) return;
  const problem = `Node cannot look at more than ${constants.MAX_LENGTH} bytes at once, and these are ${length}`;
  throw new SystemCallError('mmap', subject, EFBIG, problem);
}

function mapAddress(
  length: number,
  prot: number,
  flags: number,
  fd: number,
  offset: number,
  subject: string,
): number {
  const address = libc.mmap(0, length, prot, flags, fd, offset);
  // MAP_FAILED is (void *) -1: beyond what a number holds exactly, it comes as a BigInt, which Number() rounds up.
  if (Number(address) >= MAP_FAILED) throw new SystemCallError('mmap', subject, libc.errno());
  return address;
}

/**
 * Maps `length` bytes (> 0) of a file, shared, from `offset` (a multiple of 4096). Without `write`, a write to the mapping
 * kills the process. On machines with larger pages, whole pages are mapped with the same rights, but only the requested bytes
 * are accessible through `buffer`. The caller guarantees that the file is and stays long enough: an access past its end kills
 * the process with SIGBUS. Throws {@link SystemCallError}; EFBIG for more than an ArrayBuffer can hold (4 GiB).
 */
export function mapShared(
  fd: number,
  length: number,
  options: { offset?: number; write?: boolean; subject?: string } = {},
): Mapping {
  const { offset = 0, write = false, subject = `fd ${fd}` } = options;
  checkLength(length, subject);
  const prot = write ? PROT_READ | PROT_WRITE : PROT_READ;
  const map = (from: number, size: number) => mapAddress(size, prot, MAP_SHARED, fd, from, subject);
  try {
    return new Mapping(map(offset, length), length);
  } catch (error) {
    const page = pageSizeOf(fd);
    const aligned = offset % page === 0 && length % page === 0;
    if ((error as SystemCallError).code !== 'EINVAL' || aligned || offset % SMALLEST_PAGE !== 0) throw error;
    const from = Math.floor(offset / page) * page;
    const size = Math.ceil((offset + length) / page) * page - from;
    const start = map(from, size);
    return new Mapping(start + offset - from, length, start, size);
  }
}

/** On hugetlbfs, the block size of a file is the size of its pages. */
function pageSizeOf(fd: number): number {
  try {
    return Math.max(fstatSync(fd).blksize, PAGE_SIZE);
  } catch {
    return PAGE_SIZE;
  }
}

/**
 * Maps a part of a file like {@link mapShared} and unmaps it at once, which on hugetlbfs reserves its pages. Any length.
 * Throws {@link SystemCallError}.
 */
export function reserveShared(fd: number, offset: number, length: number, subject: string): void {
  const address = mapAddress(length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset, subject);
  libc.munmap(address, length);
}

/** Private zeroed memory with a known address, for buffers of system calls. Throws {@link SystemCallError}. */
export function mapPrivate(length: number): Mapping {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS;
  const subject = `${length} bytes of memory`;
  checkLength(length, subject);
  return new Mapping(mapAddress(length, PROT_READ | PROT_WRITE, flags, -1, 0, subject), length);
}

/** Sets the length of a file, in bytes. Throws {@link SystemCallError}. */
export function setFileLength(fd: number, length: number, subject: string): void {
  check(libc.ftruncate(fd, length), 'ftruncate', subject);
}
