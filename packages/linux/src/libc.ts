import koffi from 'koffi';

/**
 * The libc functions that this project calls, bound once. They are looked up in the process itself, and so come from the
 * libc that Node uses (glibc or musl).
 *
 * Addresses are plain numbers (`uintptr_t`; user space ends below 2^47, so they are exact), `ssize_t` and `off_t`
 * are `int64_t`. Nothing here checks a result: see `errors.ts`.
 */
const process_ = koffi.load(null);

/** errno of the calling thread's last failed call. */
export const errno: () => number = () => koffi.errno();

export const getpid: () => number = process_.func('int getpid()');
export const close: (fd: number) => number = process_.func('int close(int)');
export const dup3: (from: number, to: number, flags: number) => number =
  process_.func('int dup3(int, int, int)');
export const fcntl: (fd: number, command: number, type: 'int', argument: number) => number =
  process_.func('int fcntl(int, int, ...)');
/** fcntl(2) with a struct flock as argument. */
export const fcntlLock: (fd: number, command: number, type: 'void *', lock: Uint8Array) => number =
  fcntl as never;
export const open: (path: string, flags: number, type: 'uint', mode: number) => number = process_.func(
  'int open(const char *, int, ...)',
);
/** read(2) into memory at an address. */
export const read: (fd: number, address: number, length: number) => number = process_.func(
  'int64_t read(int, uintptr_t, size_t)',
);
/** write(2) from memory at an address. */
export const write: (fd: number, address: number, length: number) => number = process_.func(
  'int64_t write(int, uintptr_t, size_t)',
);
/** readv(2) with `count` iovecs at an address. */
export const readv: (fd: number, iovecs: number, count: number) => number = process_.func(
  'int64_t readv(int, uintptr_t, int)',
);
/** writev(2) with `count` iovecs at an address. */
export const writev: (fd: number, iovecs: number, count: number) => number = process_.func(
  'int64_t writev(int, uintptr_t, int)',
);
/** ioctl(2) with a buffer as argument. */
export const ioctl: (fd: number, request: number, type: 'void *', argument: Uint8Array) => number =
  process_.func('int ioctl(int, unsigned long, ...)');
/** ioctl(2) with a number as argument. */
export const ioctlInt: (fd: number, request: number, type: 'long', argument: number) => number =
  ioctl as never;

export const mmap: (
  address: number,
  length: number,
  protection: number,
  flags: number,
  fd: number,
  offset: number,
) => number = process_.func('uintptr_t mmap(uintptr_t, size_t, int, int, int, int64_t)');
export const munmap: (address: number, length: number) => number = process_.func(
  'int munmap(uintptr_t, size_t)',
);
export const memfdCreate: (name: string, flags: number) => number = process_.func(
  'int memfd_create(const char *, unsigned int)',
);
export const shmOpen: (name: string, flags: number, mode: number) => number = process_.func(
  'int shm_open(const char *, int, unsigned int)',
);
export const shmUnlink: (name: string) => number = process_.func('int shm_unlink(const char *)');
export const ftruncate: (fd: number, length: number) => number = process_.func('int ftruncate(int, int64_t)');
export const fallocate: (fd: number, mode: number, offset: number, length: number) => number = process_.func(
  'int fallocate(int, int, int64_t, int64_t)',
);
export const lseek: (fd: number, offset: number, whence: number) => number = process_.func(
  'int64_t lseek(int, int64_t, int)',
);
export const flock: (fd: number, operation: number) => number = process_.func('int flock(int, int)');

/** preadv2(2) with the iovecs at an address; offset -1 means the file's position. */
export const preadv2: (fd: number, iovecs: number, count: number, offset: number, flags: number) => number =
  process_.func('int64_t preadv2(int, uintptr_t, int, int64_t, int)');

export const eventfd: (initial: number, flags: number) => number = process_.func(
  'int eventfd(unsigned int, int)',
);
/** syscall(2) with three arguments, for calls without a libc function. */
export const syscall: (number: number, first: number, second: number, third: number) => number =
  process_.func('long syscall(long, uintptr_t, uintptr_t, uintptr_t)');
/** The same with five. */
export const syscall5: (
  number: number,
  first: number,
  second: number,
  third: number,
  fourth: number,
  fifth: number,
) => number = process_.func('long syscall(long, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t)');
export const timerfdCreate: (clock: number, flags: number) => number = process_.func(
  'int timerfd_create(int, int)',
);
export const timerfdSettime: (fd: number, flags: number, value: Uint8Array, old: null) => number =
  process_.func('int timerfd_settime(int, int, const void *, void *)');
/** clock_gettime(2) into struct timespec {i64 seconds, i64 nanoseconds}. */
export const clockGettime: (clock: number, time: Uint8Array) => number = process_.func(
  'int clock_gettime(int, _Out_ void *)',
);
export const epollCreate1: (flags: number) => number = process_.func('int epoll_create1(int)');
export const epollCtl: (epoll: number, operation: number, fd: number, event: Uint8Array | null) => number =
  process_.func('int epoll_ctl(int, int, int, void *)');

export interface EpollWait {
  (epoll: number, events: number, capacity: number, timeout: number): number;
  async(
    epoll: number,
    events: number,
    capacity: number,
    timeout: number,
    done: (error: Error | null, ready: number) => void,
  ): void;
}
export const epollWait: EpollWait = process_.func('int epoll_wait(int, uintptr_t, int, int)') as never;

export const socket: (domain: number, type: number, protocol: number) => number =
  process_.func('int socket(int, int, int)');
export const bind: (fd: number, address: Uint8Array, length: number) => number = process_.func(
  'int bind(int, const void *, unsigned int)',
);
export const connect: (fd: number, address: Uint8Array, length: number) => number = process_.func(
  'int connect(int, const void *, unsigned int)',
);
export const listen: (fd: number, backlog: number) => number = process_.func('int listen(int, int)');
/** accept4(2), without the peer's address. */
export const accept4: (fd: number, address: null, length: null, flags: number) => number = process_.func(
  'int accept4(int, void *, void *, int)',
);
export const shutdown: (fd: number, how: number) => number = process_.func('int shutdown(int, int)');
/** sendmsg(2) of the msghdr at an address. */
export const sendmsg: (fd: number, message: number, flags: number) => number = process_.func(
  'int64_t sendmsg(int, uintptr_t, int)',
);
/** recvmsg(2) into the msghdr at an address. */
export const recvmsg: (fd: number, message: number, flags: number) => number = process_.func(
  'int64_t recvmsg(int, uintptr_t, int)',
);
export const socketpair: (domain: number, type: number, protocol: number, fds: Uint8Array) => number =
  process_.func('int socketpair(int, int, int, _Out_ void *)');
/** send(2) from memory at an address. */
export const send: (fd: number, address: number, length: number, flags: number) => number = process_.func(
  'int64_t send(int, uintptr_t, size_t, int)',
);
/** recv(2) into memory at an address. */
export const recv: (fd: number, address: number, length: number, flags: number) => number = process_.func(
  'int64_t recv(int, uintptr_t, size_t, int)',
);
export const sendto: (
  fd: number,
  bytes: Uint8Array,
  length: number,
  flags: number,
  address: Uint8Array | null,
  addressLength: number,
) => number = process_.func('int64_t sendto(int, const void *, size_t, int, const void *, unsigned int)');
export const recvfrom: (
  fd: number,
  bytes: Uint8Array,
  length: number,
  flags: number,
  address: Uint8Array | null,
  addressLength: Uint8Array | null,
) => number = process_.func('int64_t recvfrom(int, _Out_ void *, size_t, int, _Out_ void *, _Inout_ void *)');
export const getsockopt: (
  fd: number,
  level: number,
  option: number,
  value: Uint8Array,
  length: Uint8Array,
) => number = process_.func('int getsockopt(int, int, int, _Out_ void *, _Inout_ void *)');
export const setsockopt: (
  fd: number,
  level: number,
  option: number,
  value: Uint8Array,
  length: number,
) => number = process_.func('int setsockopt(int, int, int, const void *, unsigned int)');
export const getsockname: (fd: number, address: Uint8Array, length: Uint8Array) => number = process_.func(
  'int getsockname(int, _Out_ void *, _Inout_ void *)',
);

export const unshare: (flags: number) => number = process_.func('int unshare(int)');
export const setns: (fd: number, type: number) => number = process_.func('int setns(int, int)');
export const mount: (
  source: string,
  target: string,
  type: string,
  flags: number,
  data: string | null,
) => number = process_.func(
  'int mount(const char *, const char *, const char *, unsigned long, const char *)',
);
export const umount2: (target: string, flags: number) => number = process_.func(
  'int umount2(const char *, int)',
);
export const umask: (mask: number) => number = process_.func('unsigned int umask(unsigned int)');
export const schedYield: () => number = process_.func('int sched_yield()');
export const sysconf: (name: number) => number = process_.func('long sysconf(int)');
/** getrlimit(2) of this process: struct rlimit {u64 soft, u64 hard}. */
export const getrlimit: (resource: number, limits: Uint8Array) => number = process_.func(
  'int getrlimit(int, _Out_ void *)',
);
export const setrlimit: (resource: number, limits: Uint8Array) => number = process_.func(
  'int setrlimit(int, const void *)',
);

/** In both struct passwd and struct group the ID follows two pointers. */
const numberOf = (entry: unknown): number | null =>
  entry === null ? null : koffi.decode(entry, 16, 'uint32_t');
const getpwnam_ = process_.func('void *getpwnam(const char *)');
const getgrnam_ = process_.func('void *getgrnam(const char *)');
/** The uid of getpwnam(3)'s entry; null if there is none. */
export const getpwnam = (name: string): number | null => numberOf(getpwnam_(name));
/** The gid of getgrnam(3)'s entry; null if there is none. */
export const getgrnam = (name: string): number | null => numberOf(getgrnam_(name));
