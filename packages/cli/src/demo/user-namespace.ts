import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { namespaceLimits } from '@ivshmem/linux/network';
import { EXIT_FAILURE } from '../exit.ts';

/** Set for a demo that runs in a user namespace already: it does not try again. */
const INSIDE = 'IVSHMEM_DEMO_USER_NAMESPACE';

export function isInsideUserNamespace(): boolean {
  return process.env[INSIDE] !== undefined;
}

/**
 * Runs this command line again as root of a user namespace, which has all privileges over its own network namespaces.
 * unshare(1) is part of util-linux, which every Debian has; a process with several threads cannot create a user namespace
 * for itself. `missing` says which privilege this process lacks. Returns the exit code.
 */
export async function runInUserNamespace(missing: string, signal: AbortSignal): Promise<number> {
  const refused = whyNoNamespaces();
  if (refused !== null) throw new Error(`The demo can't run here. ${missing} ${refused}`);
  const command = [...NAMESPACES, process.execPath, ...process.argv.slice(1)];
  // In its own process group: signals reach only this process. The other one stops when its standard input ends, which
  // also happens if this process is killed.
  const child = spawn('unshare', command, {
    stdio: ['pipe', 'inherit', 'inherit'],
    detached: true,
    env: { ...process.env, [INSIDE]: '1' },
  });
  const stop = () => child.stdin.end();
  child.stdin.on('error', () => {});
  signal.addEventListener('abort', stop);
  if (signal.aborted) stop();
  const [code] = await once(child, 'exit');
  return code ?? EXIT_FAILURE;
}

/** Arguments of unshare(1). */
const NAMESPACES = ['--user', '--map-root-user', '--net', '--mount', '--'];

/** Why unshare(1) cannot create the namespaces, in a sentence with the remedy; null if it can. */
function whyNoNamespaces(): string | null {
  const env = { ...process.env, LC_ALL: 'C' };
  const { error, status, stderr } = spawnSync('unshare', [...NAMESPACES, 'true'], { encoding: 'utf8', env });
  if (status === 0) return null;
  if (error !== undefined) return `Without privileges it needs unshare(1), of util-linux (${error.message}).`;
  const [text] = stderr.trim().split('\n');
  const remedy = text?.includes('No space left on device')
    ? namespaceLimits('user', 'net', 'mnt')
    : 'allow them with sysctl kernel.unprivileged_userns_clone=1 (Debian) or kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), in a container with a seccomp profile that does';
  return `User namespaces can't be made either (${text}): ${remedy}.`;
}
