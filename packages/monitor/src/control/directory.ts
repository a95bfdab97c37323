import { accessSync, constants, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { removeDeadSocket } from '@ivshmem/linux/socket';

/** Of root, and of the services, which may write there as members of the group ivshmem. Source: tmpfiles.d/ivshmem.conf. */
const SYSTEM_DIRECTORY = '/run/ivshmem';
/** Replaces all directories. */
const VARIABLE = 'IVSHMEM_RUNTIME_DIR';
/** `net-4711.ctl`: the command and its process. */
const SUFFIX = '.ctl';
/** Maximum number of control sockets that are looked at. */
const MAX_SOCKETS = 4096;

type Environment = Readonly<Record<string, string | undefined>>;

/** A control socket in a runtime directory. */
export interface ControlSocketEntry {
  readonly path: string;
  /** Such as `net-4711`. */
  readonly name: string;
}

/** Where control sockets of this user may be, most important first. */
export function controlDirectories(environment: Environment = process.env): string[] {
  const { [VARIABLE]: only, XDG_RUNTIME_DIR: ofSession } = environment;
  if (only) return [only];
  const uid = process.geteuid?.() ?? 0;
  if (uid === 0) return [SYSTEM_DIRECTORY];
  return [SYSTEM_DIRECTORY, join(ofSession || `/run/user/${uid}`, 'ivshmem')];
}

/**
 * The first of {@link controlDirectories} where this process can create its socket; the directory is created, for this user
 * only, if its parent exists. Throws an Error of one line if there is none.
 */
export function ownControlDirectory(environment: Environment = process.env): string {
  const directories = controlDirectories(environment);
  for (const directory of directories) {
    try {
      mkdirSync(directory, { mode: directory === SYSTEM_DIRECTORY ? 0o755 : 0o700 });
    } catch {
      // It exists, or the next check says that it does not.
    }
    try {
      accessSync(directory, constants.W_OK | constants.X_OK);
      return directory;
    } catch {
      // The next one.
    }
  }
  throw new Error(
    `no control socket: this user cannot write to ${directories.join(' or ')}: set ${VARIABLE} to a directory`,
  );
}

/** The path of the control socket with this name. */
export function controlPath(directory: string, name: string): string {
  return join(directory, `${name}${SUFFIX}`);
}

/** All control sockets in these directories, by name. Those of dead processes are removed. */
export function controlSockets(directories: readonly string[] = controlDirectories()): ControlSocketEntry[] {
  return directories
    .flatMap(namesIn)
    .filter(({ path }) => !removeDeadSocket(path))
    .slice(0, MAX_SOCKETS);
}

function namesIn(directory: string): ControlSocketEntry[] {
  let files: string[];
  try {
    files = readdirSync(directory);
  } catch {
    // It does not exist, or this user may not read it.
    return [];
  }
  return files
    .filter((file) => file.endsWith(SUFFIX))
    .sort(new Intl.Collator('en', { numeric: true }).compare)
    .map((file) => ({ path: join(directory, file), name: file.slice(0, -SUFFIX.length) }));
}
