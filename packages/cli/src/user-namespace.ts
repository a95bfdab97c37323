import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import { namespaceLimits } from '@ivshmem/linux/network';

/** Set for a command that runs in a user namespace already: it does not try again. */
const INSIDE = 'IVSHMEM_USER_NAMESPACE';

export function isInsideUserNamespace(): boolean {
  return process.env[INSIDE] !== undefined;
}

/** Arguments of unshare(1). */
const NAMESPACES = ['--user', '--map-root-user', '--net', '--mount', '--'];

/**
 * Runs this command line again as root of a user namespace, which has all privileges over its own network namespaces.
 * unshare(1) is part of util-linux, which every Debian has; a process with several threads cannot create a user namespace
 * for itself. Standard input is a pipe: the command stops when it ends, which also happens if this process is killed.
 */
export function runInUserNamespace(stdio: SpawnOptions['stdio'], signal: AbortSignal): ChildProcess {
  const command = [...NAMESPACES, process.execPath, ...process.argv.slice(1)];
  // In its own process group: signals reach only this process.
  const child = spawn('unshare', command, { stdio, detached: true, env: { ...process.env, [INSIDE]: '1' } });
  const stop = () => child.stdin?.end();
  child.stdin?.on('error', () => {});
  signal.addEventListener('abort', stop);
  if (signal.aborted) stop();
  return child;
}

/** Why unshare(1) cannot create the namespaces, and what helps; null if it can. */
export function userNamespaceProblem(): { readonly reason: string; readonly remedy: string } | null {
  const env = { ...process.env, LC_ALL: 'C' };
  const { error, status, stderr } = spawnSync('unshare', [...NAMESPACES, 'true'], { encoding: 'utf8', env });
  if (status === 0) return null;
  if (error !== undefined) return { reason: error.message, remedy: 'install unshare(1), of util-linux' };
  const [reason = ''] = stderr.trim().split('\n');
  const remedy = reason.includes('No space left on device')
    ? namespaceLimits('user', 'net', 'mnt')
    : 'allow them with sysctl kernel.unprivileged_userns_clone=1 (Debian) or kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), in a container with a seccomp profile that does';
  return { reason, remedy };
}
