import { readFileSync } from 'node:fs';

/** Kinds of namespaces, as in the names of /proc/sys/user/max_*_namespaces. */
export type NamespaceKind = 'user' | 'net' | 'mnt';

/**
 * The remedy for ENOSPC from unshare(2) or clone(2), which means that a limit on namespaces is reached: a limit for each
 * of `kinds`, with its value. Source: namespaces(7), user_namespaces(7).
 */
export function namespaceLimits(...kinds: NamespaceKind[]): string {
  const limits = kinds.map((kind) => `user.max_${kind}_namespaces is ${limitOf(kind)}`).join(', ');
  return `no more namespaces are allowed (${limits}): raise the limit with sysctl -w, or end what holds namespaces`;
}

function limitOf(kind: NamespaceKind): string {
  try {
    return readFileSync(`/proc/sys/user/max_${kind}_namespaces`, 'latin1').trim();
  } catch {
    return 'unknown';
  }
}
