import { constants as fs } from 'node:fs';
import { constants as os } from 'node:os';

export const { EAGAIN, EINTR, EIO } = os.errno;

export const { O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR } = fs;
/** Node has no names for these; the same on x86-64 and arm64. */
export const O_CLOEXEC = 0o2000000;
export const F_DUPFD_CLOEXEC = 1030;
export const F_GETFL = 3;
export const F_SETFL = 4;
