import { spawnSync } from 'node:child_process';

/** The user "nobody", and the only one in its group, on most systems. */
export const NOBODY = 65534;

/**
 * Runs a command as a user without privileges who sees a /dev/net of its own, in a mount namespace: nothing else on this
 * machine changes. `device` makes the TUN device there, accessible to all.
 */
export function asNobody(device: boolean, ...command: string[]): string[] {
  const prepare = ['mount -t tmpfs -o mode=755 ivshmem-test /dev/net'];
  if (device) prepare.push('mknod /dev/net/tun c 10 200', 'chmod 666 /dev/net/tun');
  const user = `setpriv --reuid ${NOBODY} --regid ${NOBODY} --clear-groups --no-new-privs`;
  const script = [...prepare, `exec ${user} -- "$@"`].join(' && ');
  return ['unshare', '--mount', '--', 'sh', '-c', script, 'sh', ...command];
}

/** Why an unprivileged user can't have a TAP in a user namespace here; null if it can. */
export function missingUserNamespaces(): string | null {
  const open = 'exec 3<>/dev/net/tun';
  const inside = ['unshare', '--user', '--map-root-user', '--net', '--mount', '--', 'sh', '-c', open];
  const [file, ...argv] = asNobody(true, ...inside);
  const { status, stderr, error } = spawnSync(file!, argv, { encoding: 'utf8' });
  if (status === 0) return null;
  return error?.message ?? stderr.trim().split('\n')[0] ?? 'user namespaces are not available';
}
