import { closeSync, mkdirSync, openSync, readdirSync, unlinkSync } from 'node:fs';
import { constants } from 'node:os';
import { SystemCallError } from '../errors.ts';
import * as libc from '../libc.ts';
import { NETNS_DIRECTORY, Netns } from './netns.ts';

const MS_BIND = 0x1000;
const MS_REC = 0x4000;
const MS_SHARED = 1 << 20;
const MNT_DETACH = 2;
const { EINVAL } = constants.errno;

function pathOf(name: string): string {
  if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name) || Buffer.byteLength(name) > 255) {
    throw new RangeError(`network namespace "${name}": a name has 1 to 255 bytes and no slash`);
  }
  return `${NETNS_DIRECTORY}/${name}`;
}

/** Errno, or 0. */
function mount(source: string, target: string, flags: number): number {
  return libc.mount(source, target, 'none', flags, null) === -1 ? libc.errno() : 0;
}

/**
 * Sets up /run/netns like iproute2: a shared mount, so that creating and removing names propagates to mount namespaces that
 * were copied from this one.
 */
function prepareDirectory(): void {
  mkdirSync(NETNS_DIRECTORY, { recursive: true, mode: 0o755 });
  let errno = mount('', NETNS_DIRECTORY, MS_SHARED | MS_REC);
  if (errno === EINVAL) {
    // No mount point yet.
    errno = mount(NETNS_DIRECTORY, NETNS_DIRECTORY, MS_BIND | MS_REC);
    if (errno === 0) errno = mount('', NETNS_DIRECTORY, MS_SHARED | MS_REC);
  }
  if (errno !== 0) throw new SystemCallError('mount', NETNS_DIRECTORY, errno, 'needs CAP_SYS_ADMIN');
}

/**
 * Creates a network namespace that outlives this process, under a name that `ip netns` knows, with `lo` up. The caller owns
 * the returned handle. Throws RangeError for an invalid name, Error (EEXIST) if the name is taken, and
 * {@link SystemCallError}.
 */
export function createNamedNetns(name: string): Netns {
  const path = pathOf(name);
  prepareDirectory();
  closeSync(openSync(path, 'ax', 0));
  let created: Netns | undefined;
  try {
    created = Netns.create();
    const errno = mount(created.path, path, MS_BIND);
    if (errno !== 0) throw new SystemCallError('mount', path, errno, 'needs CAP_SYS_ADMIN');
    return created;
  } catch (error) {
    created?.close();
    unlinkSync(path);
    throw error;
  }
}

/**
 * Removes a name, which any program may have created; the namespace is deleted with its last user. Throws RangeError for an
 * invalid name, {@link SystemCallError}, and Error (ENOENT) if there is no such name.
 */
export function deleteNamedNetns(name: string): void {
  const path = pathOf(name);
  if (libc.umount2(path, MNT_DETACH) === -1) {
    const errno = libc.errno();
    // EINVAL: not mounted, because its creator was killed before the mount.
    if (errno !== EINVAL) throw new SystemCallError('umount', path, errno);
  }
  unlinkSync(path);
}

/** The names under /run/netns, sorted. */
export function listNamedNetns(): string[] {
  try {
    return readdirSync(NETNS_DIRECTORY).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
