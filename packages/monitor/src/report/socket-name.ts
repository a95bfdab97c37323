import { realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';

/**
 * The absolute path of a socket without symbolic links in its directory, by which the parts of a link are matched. The socket
 * itself need not exist.
 */
export function socketName(path: string): string {
  const absolute = resolve(path);
  try {
    return join(realpathSync(dirname(absolute)), basename(absolute));
  } catch {
    // Its directory does not exist either.
    return absolute;
  }
}
