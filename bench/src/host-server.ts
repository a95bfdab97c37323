import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { closeFd } from '@ivshmem/linux';
import { raiseOpenFilesLimit } from '@ivshmem/linux/process';
import { UnixSocket } from '@ivshmem/linux/socket';
import { EPOLLIN, Epoll } from '@ivshmem/linux/wait';
import { ServerProcess } from './server-process.ts';
import { type Figure, show, summarise } from './statistics.ts';

const VECTORS = 2;
const PEERS = [10, 100, 1000];
/** Joins at the end of each series that make up the time of the N-th one. */
const LAST = 10;

/** A client that counts what it gets: each message comes alone, since each of them has a descriptor. */
class Peer {
  readonly socket: UnixSocket;
  readonly #into = new Uint8Array(64);
  readonly #fds: number[] = [];

  constructor(path: string) {
    this.socket = UnixSocket.connect(path);
  }

  /** Returns how many messages there were. */
  readAll(): number {
    for (let messages = 0; ; messages++) {
      const received = this.socket.receive(this.#into, this.#fds);
      if (received === 0) throw new Error('the server has closed the connection');
      for (const fd of this.#fds) closeFd(fd);
      this.#fds.length = 0;
      if (received === -1) return messages;
    }
  }
}

interface Series {
  /** Of the last ones, from connect(2) to the last eventfd, in ms. */
  readonly joins: number[];
  /** Until all peers have been announced to one another, in s. */
  readonly total: number;
  /** Of the server, in bytes. */
  readonly memoryPerPeer: number;
}

/**
 * Lets peers with two vectors join a server in a process of its own, one after the other, and prints how long the N-th
 * one takes, how many join in a second, and what each takes of the server's memory.
 */
export async function benchHostServer(rounds: number): Promise<Record<string, Figure>> {
  console.log(`Host server, ${VECTORS} vectors: median (minimum to maximum)`);
  console.log('  peers   N-th join, ms                  joins/s                        KiB a peer');
  raiseOpenFilesLimit();
  const results: Record<string, Figure> = {};
  for (const peers of PEERS) {
    const series: Series[] = [];
    for (let round = 0; round < (peers >= 1000 ? Math.min(rounds, 2) : rounds); round++) {
      series.push(await joinAll(peers));
    }
    const join = summarise(series.flatMap(({ joins }) => joins));
    const rate = summarise(series.map(({ total }) => peers / total));
    const memory = summarise(series.map(({ memoryPerPeer }) => memoryPerPeer / 1024));
    results[`host-server-join-ms-${peers}`] = join;
    results[`host-server-joins-per-s-${peers}`] = rate;
    results[`host-server-kib-per-peer-${peers}`] = memory;
    const columns = [show(join, 3), show(rate, 0), show(memory, 1)].map((text) => text.padEnd(29));
    console.log(`  ${String(peers).padStart(5)}   ${columns.join('  ')}`.trimEnd());
  }
  return results;
}

async function joinAll(count: number): Promise<Series> {
  const directory = mkdtempSync(join(tmpdir(), 'ivshmem-bench-'));
  const socketPath = join(directory, 'socket');
  const server = await ServerProcess.start(['-S', socketPath, '-n', '1024', '-V', String(VECTORS)]);
  const epoll = new Epoll();
  const peers: Peer[] = [];
  try {
    const before = server.residentMemory;
    const joins: number[] = [];
    const begin = performance.now();
    let waiting = 0;
    for (let n = 0; n < count; n++) {
      const start = performance.now();
      const peer = new Peer(socketPath);
      const expected = 1 + (n + 1) * VECTORS;
      for (let messages = 0; messages < expected; ) messages += peer.readAll();
      if (n >= count - LAST) joins.push(performance.now() - start);
      // The connected peers get the message, too, which takes them time.
      waiting += n * VECTORS;
      while (waiting > 0) epoll.wait(1000);
      epoll.add(peer.socket.fd, EPOLLIN, () => {
        waiting -= peer.readAll();
      });
      peers.push(peer);
    }
    const total = (performance.now() - begin) / 1000;
    return { joins, total, memoryPerPeer: (server.residentMemory - before) / count };
  } finally {
    epoll.close();
    for (const peer of peers) peer.socket.close();
    await server.stop();
    rmSync(directory, { recursive: true });
  }
}
