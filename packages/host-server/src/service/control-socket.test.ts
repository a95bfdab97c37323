import { statSync } from 'node:fs';
import { createServer } from 'node:net';
import { UnixSocket } from '@ivshmem/linux/socket';
import { afterEach, describe, expect, it } from 'vitest';
import { openFds, readable, useHostServers } from '../server/strict-client.test-support.ts';
import { type ControlSocket, listenControl } from './control-socket.ts';
import { queryPeers } from './peer-list.ts';

describe('control socket', () => {
  const fixture = useHostServers();
  const open: ControlSocket[] = [];
  afterEach(() => {
    for (const control of open.splice(0)) control.close();
  });

  it('lists the connected peers, to the user of the server only', async () => {
    const server = fixture.start({ maxPeers: 5, vectors: 3, protocol: 2 });
    open.push(listenControl(server, 'blue'));
    expect(statSync(`${fixture.socketPath}.ctl`).mode & 0o777).toBe(0o600);
    expect(await queryPeers(fixture.socketPath)).toMatchObject({ link: 'blue', peers: [] });
    const before = new Date();
    await fixture.join(3, []);
    await fixture.join(3, [0]);
    expect(await queryPeers(fixture.socketPath)).toEqual({
      link: 'blue',
      socketPath: fixture.socketPath,
      size: 4 << 20,
      outputSectionSize: 0,
      maxPeers: 5,
      vectors: 3,
      protocol: 2,
      peers: [0, 1].map((id) => ({
        id,
        pid: process.pid,
        uid: process.getuid!(),
        gid: process.getgid!(),
        state: 0,
        waiting: 0,
        since: expect.any(Date),
      })),
    });
    const { peers } = await queryPeers(fixture.socketPath);
    expect(peers[0]!.since.getTime()).toBeGreaterThanOrEqual(before.getTime());
  });

  it('bounds clients that write or do not read, and releases all descriptors', async () => {
    const server = fixture.start();
    const control = listenControl(server, 'blue');
    open.push(control);
    const during = openFds();
    const idle = Array.from({ length: 40 }, () => UnixSocket.connect(control.path));
    for (const socket of idle) socket.send(Buffer.from('GET / HTTP/1.0\r\n\r\n'));
    await fixture.join(1, []);
    for (const socket of idle) {
      await readable(socket.fd);
      socket.close();
    }
    expect((await queryPeers(fixture.socketPath)).peers).toHaveLength(1);
    server.close();
    control.close();
    control.close();
    // Without the listener, its reserve and the server's descriptors; with the client's socket, eventfd and memory.
    expect(openFds()).toBe(during - 2 - 4 + 3);
    await expect(queryPeers(fixture.socketPath)).rejects.toThrow(/\.ctl: ENOENT: no server with a control/);
  });

  const peer = { id: 0, pid: 1, uid: 0, gid: 0, since: new Date(0).toISOString(), state: 0, waiting: 0 };
  const list = {
    link: 'l',
    socketPath: 's',
    size: 1,
    outputSectionSize: 0,
    maxPeers: 2,
    vectors: 1,
    protocol: 1,
  };
  /** Replies of another process that listens at the path. */
  const answers: [string, string][] = [
    ['not JSON', '\x1b[2J'],
    ['not an object', 'null'],
    ['without peers', JSON.stringify(list)],
    ['an object for a number', JSON.stringify({ ...list, maxPeers: {}, peers: [] })],
    ['text for a number', JSON.stringify({ ...list, peers: [{ ...peer, id: '\x1b[2J' }] })],
    ['a number for text', JSON.stringify({ ...list, link: 7, peers: [] })],
    ['a date that is none', JSON.stringify({ ...list, peers: [{ ...peer, since: 'soon' }] })],
  ];
  it.each(answers)('does not accept a reply that is %s', async (_, answer) => {
    const listener = createServer((socket) => socket.on('error', () => {}).end(answer));
    await new Promise<void>((resolve) => listener.listen(`${fixture.socketPath}.ctl`, resolve));
    try {
      await expect(queryPeers(fixture.socketPath)).rejects.toThrow(/\.ctl: invalid reply: [^\n]+$/);
    } finally {
      await new Promise((resolve) => listener.close(resolve));
    }
  });
});
