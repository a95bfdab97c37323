import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { closeFd } from '@ivshmem/linux';
import { UnixSocket } from '@ivshmem/linux/socket';
import { EPOLLIN, mainPoller } from '@ivshmem/linux/wait';
import { type ReceivedMessage, ServerConnection } from '@ivshmem/transport';
import { afterEach, beforeAll, beforeEach, expect } from 'vitest';
import type { HostServerEvent } from './events.ts';
import { createHostServer, type HostServer, type HostServerOptions } from './host-server.ts';

export const openFds = () => readdirSync('/proc/self/fd').length;

/** Resolves when the socket is readable or closed. */
export function readable(fd: number): Promise<void> {
  return new Promise((resolve) => {
    mainPoller.add(fd, EPOLLIN, () => {
      mainPoller.remove(fd);
      resolve();
    });
  });
}

export async function next(connection: ServerConnection): Promise<ReceivedMessage | 'end'> {
  for (;;) {
    const read = connection.read();
    if (read !== 'wait') return read;
    await readable(connection.fd);
  }
}

/** A client that fails on any message but the expected one. */
export class StrictClient {
  readonly connection: ServerConnection;
  readonly fds = new Map<string, number>();
  id = -1;
  memory = -1;

  constructor(path: string) {
    this.connection = ServerConnection.connect(path);
  }

  async expectInit(fields: object): Promise<void> {
    const read = await next(this.connection);
    if (read === 'end' || read.message.type !== 'init') throw new Error(`no INIT: ${JSON.stringify(read)}`);
    expect(read.message).toMatchObject(fields);
    this.id = read.message.id;
    this.memory = read.fd!;
  }

  /** Receives the EVENT_FD messages of one peer, vectors in order. */
  async expectPeer(id: number, vectors: number): Promise<void> {
    for (let vector = 0; vector < vectors; vector++) {
      const read = await next(this.connection);
      if (read === 'end') throw new Error('end');
      expect(read.message).toEqual({ type: 'event-fd', id, vector });
      const old = this.fds.get(`${id}.${vector}`);
      if (old !== undefined) closeFd(old);
      this.fds.set(`${id}.${vector}`, read.fd!);
    }
  }

  async expectGone(id: number): Promise<void> {
    expect(await next(this.connection)).toEqual({ message: { type: 'peer-gone', id }, fd: null });
  }

  async expectEnd(): Promise<void> {
    expect(await next(this.connection)).toBe('end');
  }

  /** Disconnects, and keeps the memory and the eventfds. */
  disconnect(): void {
    this.connection.close();
  }

  close(): void {
    this.connection.close();
    for (const fd of this.fds.values()) closeFd(fd);
    if (this.memory !== -1) closeFd(this.memory);
    this.fds.clear();
    this.memory = -1;
  }
}

export function occurrence<T extends HostServerEvent['type']>(
  server: HostServer,
  type: T,
): Promise<HostServerEvent> {
  return new Promise((resolve) => {
    const subscription = server.events$.subscribe((event) => {
      if (event.type !== type) return;
      queueMicrotask(() => subscription.unsubscribe());
      resolve(event);
    });
  });
}

/** Fixture of {@link useHostServers}. */
export interface Fixture {
  /** In a temporary directory, which must be empty after the test. */
  readonly socketPath: string;
  start(options?: HostServerOptions): HostServer;
  connect(): StrictClient;
  /** Connects a client and receives the announcements of the peers with these IDs. */
  join(vectors: number, others: number[]): Promise<StrictClient>;
}

/** Servers and clients that are closed after each test, which must not leak descriptors or files. */
export function useHostServers(): Fixture {
  let directory: string;
  let socketPath: string;
  let before: number;
  const servers: HostServer[] = [];
  const clients: StrictClient[] = [];

  beforeAll(async () => {
    // The poller keeps its descriptors.
    const [a, b] = UnixSocket.pair();
    a.send(Uint8Array.of(1));
    await readable(b.fd);
    a.close();
    b.close();
  });

  beforeEach(() => {
    directory = mkdtempSync('/tmp/host-server-');
    socketPath = join(directory, 'socket');
    before = openFds();
  });

  afterEach(() => {
    for (const client of clients.splice(0)) client.close();
    for (const server of servers.splice(0)) server.close();
    expect(openFds()).toBe(before);
    expect(readdirSync(directory)).toEqual([]);
    rmSync(directory, { recursive: true });
  });

  function start(options: HostServerOptions = {}): HostServer {
    const server = createHostServer({ socketPath, ...options });
    servers.push(server);
    return server;
  }

  function connect(): StrictClient {
    const client = new StrictClient(socketPath);
    clients.push(client);
    return client;
  }

  async function joinAs(vectors: number, others: number[]): Promise<StrictClient> {
    const client = connect();
    await client.expectInit({});
    for (const id of others) await client.expectPeer(id, vectors);
    await client.expectPeer(client.id, vectors);
    return client;
  }

  return {
    get socketPath() {
      return socketPath;
    },
    start,
    connect,
    join: joinAs,
  };
}
