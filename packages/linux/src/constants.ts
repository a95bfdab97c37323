/** errno values (the same on x86-64 and arm64). */
export const EINTR = 4;
export const EIO = 5;
export const EAGAIN = 11;

/** open(2) and fcntl(2). */
export const O_RDONLY = 0;
export const O_RDWR = 2;
export const O_CREAT = 0o100;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
export const F_DUPFD_CLOEXEC = 1030;
export const F_GETFL = 3;
export const F_SETFL = 4;
