import { chmodSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { UnixSocket } from '@ivshmem/linux/socket';
import { beforeEach, describe, expect, it } from 'vitest';
import { allowedBy } from './access.ts';
import { occurrence, useHostServers } from './strict-client.test-support.ts';

/** Connects with other effective IDs, which SO_PEERCRED then reports. */
function connectAs(uid: number, gid: number, path: string): UnixSocket {
  process.setegid!(gid);
  process.seteuid!(uid);
  try {
    return UnixSocket.connect(path);
  } finally {
    process.seteuid!(0);
    process.setegid!(0);
  }
}

describe.runIf(process.geteuid?.() === 0)('access to a host server', () => {
  const fixture = useHostServers();
  beforeEach(() => chmodSync(dirname(fixture.socketPath), 0o755));

  it('is limited to the user of the server by default', () => {
    fixture.start();
    expect(() => connectAs(54321, 54321, fixture.socketPath)).toThrow('EACCES');
  });

  it('is open to the group of the socket if the mode permits it', async () => {
    const server = fixture.start({ mode: 0o660, group: 54321 });
    const { mode, gid } = statSync(fixture.socketPath);
    expect([mode & 0o777, gid]).toEqual([0o660, 54321]);
    expect(() => connectAs(1000, 1000, fixture.socketPath)).toThrow('EACCES');
    const joined = occurrence(server, 'peer-joined');
    const member = connectAs(1000, 54321, fixture.socketPath);
    expect(await joined).toMatchObject({ peer: { uid: 1000, gid: 54321 } });
    member.close();
  });

  it('is limited to listed credentials, whatever the mode permits', async () => {
    const allow = allowedBy({ uids: [1000], gids: [54321] });
    const server = fixture.start({ mode: 0o666, allow, maxPeers: 4 });
    const attempt = async (uid: number, gid: number) => {
      const outcome = Promise.race([occurrence(server, 'peer-joined'), occurrence(server, 'refused')]);
      const socket = connectAs(uid, gid, fixture.socketPath);
      const event = await outcome;
      socket.close();
      return event.type === 'refused' ? event.reason : event.type;
    };
    expect(await attempt(1000, 1000)).toBe('peer-joined');
    expect(await attempt(1001, 54321)).toBe('peer-joined');
    expect(await attempt(1001, 1001)).toBe('uid 1001, gid 1001 is not allowed');
    // Root has no exception.
    expect(await attempt(0, 0)).toBe('uid 0, gid 0 is not allowed');
  });
});
