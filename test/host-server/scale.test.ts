import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { queryPeers } from '@ivshmem/host-server/service';
import { closeFd } from '@ivshmem/linux';
import { openFilesLimit, raiseOpenFilesLimit, setOpenFilesLimit } from '@ivshmem/linux/process';
import { EPOLLIN, Epoll } from '@ivshmem/linux/wait';
import { ServerConnection } from '@ivshmem/transport';
import { expect, it, vi } from 'vitest';

const command = fileURLToPath(new URL('../../packages/cli/dist/bin/ivshmem.js', import.meta.url));
const PEERS = 1000;
const VECTORS = 2;

/** A peer that checks the order of the messages, and keeps only which peers are connected. */
class Peer {
  readonly connection: ServerConnection;
  id = -1;
  /** The number of vectors received for each peer. */
  readonly vectors = new Uint8Array(PEERS);
  /** How many peers have all their vectors. */
  known = 0;

  constructor(path: string) {
    this.connection = ServerConnection.connect(path);
  }

  read(): void {
    for (let read = this.connection.read(); read !== 'wait'; read = this.connection.read()) {
      if (read === 'end') throw new Error(`peer ${this.id}: the server has closed the connection`);
      const { message, fd } = read;
      if (fd !== null) closeFd(fd);
      if (message.type === 'init') {
        this.id = message.id;
      } else if (message.type === 'peer-gone') {
        if (this.vectors[message.id] !== VECTORS)
          throw new Error(`peer ${message.id} is gone that never was`);
        this.vectors[message.id] = 0;
        this.known--;
      } else {
        if (this.vectors[message.id] !== message.vector)
          throw new Error(`vector ${message.vector} out of order`);
        if (++this.vectors[message.id]! === VECTORS) this.known++;
      }
    }
  }
}

// Server: a socket and the eventfds of each peer. Here: a socket of each peer.
const needed = PEERS * (1 + VECTORS) + 200;
const { soft, hard } = openFilesLimit();

it.skipIf(hard < needed)(
  `${PEERS} peers with ${VECTORS} vectors join, see each other, and leave (RLIMIT_NOFILE of ${needed})`,
  async () => {
    raiseOpenFilesLimit();
    const directory = mkdtempSync('/tmp/scale-');
    const socket = join(directory, 'socket');
    const options = ['-F', '--json', '-S', socket, '-n', String(PEERS), '-V', String(VECTORS), '-l', '64K'];
    const server = spawn(process.execPath, [command, 'server', ...options], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const exit = once(server, 'exit');
    const lines = createInterface({ input: server.stdout });
    const peers: Peer[] = [];
    const epoll = new Epoll();
    /** Reads what is there for anybody until the condition holds. */
    const readUntil = (condition: () => boolean) => {
      while (!condition()) epoll.wait(1000);
    };
    try {
      await once(lines, 'line');
      const fds = () => readdirSync(`/proc/${server.pid}/fd`).length;
      // The control socket is made after the first line of the log.
      await vi.waitFor(() => queryPeers(socket), { timeout: 30_000 });
      const before = fds();
      // What a client sees of a connection that ends comes before the server has closed its own end.
      const settle = (count: number) => vi.waitFor(() => expect(fds()).toBe(count), { timeout: 30_000 });
      for (let n = 0; n < PEERS; n++) {
        const peer = new Peer(socket);
        epoll.add(peer.connection.fd, EPOLLIN, () => peer.read());
        peers.push(peer);
        readUntil(() => peer.known === n + 1);
        expect(peer.id).toBe(n);
      }
      readUntil(() => peers.every(({ known }) => known === PEERS));
      await settle(before + PEERS * (1 + VECTORS));
      expect((await queryPeers(socket)).peers).toHaveLength(PEERS);
      const full = ServerConnection.connect(socket);
      epoll.add(full.fd, EPOLLIN, () => {
        expect(full.read()).toBe('end');
        epoll.remove(full.fd);
        full.close();
      });

      // All but one leave, at the same moment for the server.
      const [remaining, ...leaving] = peers;
      for (const { connection } of leaving) {
        epoll.remove(connection.fd);
        connection.close();
      }
      readUntil(() => remaining!.known === 1);
      expect((await queryPeers(socket)).peers).toMatchObject([{ id: 0, waiting: 0 }]);
      await settle(before + 1 + VECTORS);
    } finally {
      epoll.close();
      for (const { connection } of peers) connection.close();
      server.kill('SIGTERM');
      await exit;
      setOpenFilesLimit(soft);
      rmSync(directory, { recursive: true });
    }
  },
);
