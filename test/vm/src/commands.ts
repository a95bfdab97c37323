import { spawnSync } from 'node:child_process';

/** The Debian package of each command, for the remedy. */
const packages: Record<string, string> = {
  'apt-get': 'apt',
  'apt-cache': 'apt',
  'dpkg-deb': 'dpkg',
  ldd: 'libc-bin',
  setpriv: 'util-linux',
};

/**
 * Runs a command and returns its output. Throws an Error of one line: if the command is missing, with the command that
 * installs it; if it fails, with the first error of apt, which causes the others, or the last line of output.
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
