import koffi from 'koffi';
import { SystemCallError } from '../errors.ts';
import * as libc from '../libc.ts';
import { mapPrivate } from '../memory/memory.ts';

// write(2) must not be used on an eventfd shared with another process: that process can fill its counter and clear
// O_NONBLOCK at any time, even between a poll(2) and a write(2), and so block the write indefinitely.
// A request of Linux AIO can name an eventfd to signal when it has completed (IOCB_FLAG_RESFD). The kernel does that as
// its drivers do: a counter at its limit stays there, and nothing ever waits. The request here is a poll of the eventfd
// itself, which is always readable or writable, so it has completed when io_submit(2) returns.

/** Numbers of io_setup(2), io_destroy(2) and io_submit(2), which libc has no functions for. */
const [IO_SETUP, IO_DESTROY, IO_SUBMIT] = process.arch === 'x64' ? [206, 207, 209] : [0, 1, 2];
const IOCB_CMD_POLL = 5;
const IOCB_FLAG_RESFD = 1;
const POLLIN = 1;
const POLLOUT = 4;

// struct iocb, 64 bytes: u64 data; u32 key, rw_flags; u16 opcode; s16 priority; u32 fd; u64 buf (for a poll: its events),
// nbytes; s64 offset; u64 reserved; u32 flags, resfd.
const IOCB_SIZE = 64;
const OPCODE_WORD = 4;
const FD_WORD = 5;
const BUF_WORD = 6;
const FLAGS_WORD = 14;
const RESFD_WORD = 15;
// struct aio_ring, mapped at the address that is the context's ID: u32 id, nr, head, tail, …
const RING_SIZE = 16;
const HEAD = 2;
const TAIL = 3;

const REMEDIES: Record<string, string> = {
  EAGAIN: 'all AIO contexts of this machine are in use: raise /proc/sys/fs/aio-max-nr',
  ENOSYS: 'this kernel has no AIO (CONFIG_AIO), without which a peer could block this process',
  EPERM: 'a seccomp filter forbids AIO (@aio of systemd), without which a peer could block this process',
};

/** The AIO context of one thread, with its only request. */
class Signaller {
  readonly #context: number;
  /** Address of a pointer to the request. */
  readonly #requests: number;
  readonly #request: Uint32Array;
  readonly #ring: Uint32Array;

  constructor() {
    // Never unmapped, as what other modules keep for each thread.
    const { address, buffer } = mapPrivate(IOCB_SIZE + 16);
    const pointers = new BigUint64Array(buffer, IOCB_SIZE, 2);
    this.#requests = address + IOCB_SIZE;
    pointers[0] = BigInt(address);
    this.#request = new Uint32Array(buffer, 0, IOCB_SIZE / 4);
    this.#request[OPCODE_WORD] = IOCB_CMD_POLL;
    this.#request[BUF_WORD] = POLLIN | POLLOUT;
    this.#request[FLAGS_WORD] = IOCB_FLAG_RESFD;
    if (libc.syscall(IO_SETUP!, 1, address + IOCB_SIZE + 8, 0) === -1) {
      const { code, errno } = new SystemCallError('io_setup', '', libc.errno());
      throw new SystemCallError('io_setup', 'for doorbells', errno, REMEDIES[code]);
    }
    this.#context = Number(pointers[1]);
    this.#ring = new Uint32Array(koffi.view(this.#context, RING_SIZE));
  }

  signal(fd: number): boolean {
    this.#request[FD_WORD] = fd;
    this.#request[RESFD_WORD] = fd;
    const submitted = libc.syscall(IO_SUBMIT!, this.#context, 1, this.#requests);
    // Completions are removed from the ring, which is limited in size.
    this.#ring[HEAD] = this.#ring[TAIL]!;
    return submitted === 1;
  }

  close(): void {
    libc.syscall(IO_DESTROY!, this.#context, 0, 0);
  }
}

let signaller: Signaller | undefined;

/**
 * Prepares this thread for {@link signalEventFd}. Throws {@link SystemCallError}: EAGAIN if the machine's AIO
 * contexts are in use, ENOSYS or EPERM if AIO is not available.
 */
export function prepareSignals(): void {
  signaller ??= new Signaller();
}

/** Releases the AIO context of {@link prepareSignals} before a thread ends, which takes the kernel about 30 ms. */
export function releaseSignals(): void {
  signaller?.close();
  signaller = undefined;
}

/**
 * Adds 1 to the counter of an eventfd that may be shared with other processes. Never blocks, whatever these do to it, and
 * allocates nothing. A counter at its limit stays there: its reader has been notified before. Returns false if the descriptor
 * is not an eventfd. Throws like {@link prepareSignals}, unless that was called before.
 */
export function signalEventFd(fd: number): boolean {
  signaller ??= new Signaller();
  return signaller.signal(fd);
}
