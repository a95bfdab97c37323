import { OptionError } from '../option-error.ts';

/** The longest path of a Unix socket, in bytes: sun_path without its final 0. Source: unix(7). */
export const MAX_SOCKET_PATH = 107;

/** Throws {@link OptionError} if no Unix socket can have this path. `what` names the socket in the message. */
export function checkSocketPath(option: string, path: string, what = 'socket'): void {
  const length = Buffer.byteLength(path);
  if (length >= 1 && length <= MAX_SOCKET_PATH && !path.includes('\0')) return;
  throw new OptionError(
    option,
    `${what} ${JSON.stringify(path)}: must be a path of 1 to ${MAX_SOCKET_PATH} bytes, not ${length}`,
  );
}
