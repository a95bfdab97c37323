// Loaded before anything else, so that what keeps the rest from being loaded can be said in one line: imports nothing.

const OLDEST_NODE = [20, 19] as const;

/** Runs a program. What it throws while it is loaded is written to stderr, in one line; the exit code is 1 then. */
export async function start(program: string, load: () => Promise<void>): Promise<void> {
  try {
    checkNode(process.versions.node);
    await load();
  } catch (error) {
    process.stderr.write(`${program}: ${whyNotLoaded(error)}\n`);
    process.exitCode = 1;
  }
}

function checkNode(version: string): void {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [oldestMajor, oldestMinor] = OLDEST_NODE;
  if (major > oldestMajor || (major === oldestMajor && minor >= oldestMinor)) return;
  throw new Error(`this is Node ${version}: install ${OLDEST_NODE.join('.')} or later`);
}

/** One line with the remedy. */
export function whyNotLoaded(error: unknown): string {
  const { message, code } =
    error instanceof Error ? (error as NodeJS.ErrnoException) : { message: String(error) };
  const line = message.trim().split('\n')[0]!;
  if (code === 'EMFILE') {
    return `${line}: raise the limit of open files to 256 or more ("ulimit -n", or LimitNOFILE= of a systemd unit)`;
  }
  if (/koffi/i.test(message)) {
    const { platform, arch } = process;
    return `koffi's native library can't be loaded: ${line}: install the packages on this machine (${platform} ${arch}), with optional dependencies`;
  }
  if (code === 'ERR_MODULE_NOT_FOUND')
    return `${line}: install the packages again; in a checkout, "npm ci && npm run build"; if all is there, raise the limit of open files ("ulimit -n")`;
  return line;
}
