import { spawnSync } from 'node:child_process';

/** Which Debian package brings a command, for the remedy. */
const packages: Record<string, string> = {
  'apt-get': 'apt',
  'apt-cache': 'apt',
  'dpkg-deb': 'dpkg',
  ldd: 'libc-bin',
  setpriv: 'util-linux',
};

/**
 * Runs a command to its end and returns what it printed. Throws an Error of one line: where the command is missing,
 * with the line that installs it; where it fails, with what it said: apt's first error, which the others follow from,
 * or the last line.
 */
export function runCommand(
  command: string,
  argv: readonly string[],
  options: { env?: NodeJS.ProcessEnv; cwd?: string; input?: Uint8Array } = {},
): Buffer {
  const result = spawnSync(command, argv, { maxBuffer: 2 ** 28, ...options });
  if ((result.error as NodeJS.ErrnoException | undefined)?.code === 'ENOENT') {
    const remedy = packages[command];
    throw new Error(
      `${command}: not found${remedy === undefined ? '' : `: install it with "apt-get install ${remedy}"`}`,
    );
  }
  if (result.error) throw result.error;
  if (result.status !== 0) {
    const lines = result.stderr.toString().trim().split('\n');
    const reason = lines.find((line) => line.startsWith('E: ')) ?? lines.at(-1);
    throw new Error(
      `${command} ${argv.join(' ')}: ${reason || `exit code ${result.status ?? result.signal}`}`,
    );
  }
  return result.stdout;
}
