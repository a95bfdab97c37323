import type { PeerCredentials } from '@ivshmem/linux/socket';

/** Who may connect, as the kernel knows them (SO_PEERCRED): effective user and group at the time of connect(2). */
export interface AccessList {
  readonly uids: readonly number[];
  readonly gids: readonly number[];
}

/** Whether a client is on the list, by its uid or by its gid. An empty list lets in everybody. */
export function allowedBy({ uids, gids }: AccessList): (credentials: PeerCredentials) => boolean {
  if (uids.length === 0 && gids.length === 0) return () => true;
  const users = new Set(uids);
  const groups = new Set(gids);
  return ({ uid, gid }) => users.has(uid) || groups.has(gid);
}
