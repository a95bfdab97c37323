import type { PeerCredentials } from '@ivshmem/linux/socket';

/** Users and groups that may connect. Compared with SO_PEERCRED: effective uid and gid at the time of connect(2). */
export interface AccessList {
  readonly uids: readonly number[];
  readonly gids: readonly number[];
}

/** Returns a predicate that accepts clients with a listed uid or a listed gid. An empty list accepts all clients. */
export function allowedBy({ uids, gids }: AccessList): (credentials: PeerCredentials) => boolean {
  if (uids.length === 0 && gids.length === 0) return () => true;
  const users = new Set(uids);
  const groups = new Set(gids);
  return ({ uid, gid }) => users.has(uid) || groups.has(gid);
}
