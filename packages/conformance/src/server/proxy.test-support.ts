import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createHostServer, type HostServer, type HostServerOptions } from '@ivshmem/host-server';
import { closeFd } from '@ivshmem/linux';
import { UnixListener, UnixSocket } from '@ivshmem/linux/socket';
import { Pace } from '../pace.ts';
import { ServerClient } from './client.ts';
import { INIT, type Message } from './message.ts';
import type { RunningServer, ServerSettings, ServerSource } from './subject.ts';

/** A message on its way to a client. */
export interface Outgoing {
  readonly bytes: Uint8Array;
  readonly fds: readonly number[];
}

/** One client of the proxy, with its connection to the real server. */
export class ProxyClient {
  readonly socket: UnixSocket;
  readonly upstream: ServerClient;
  readonly queue: Outgoing[] = [];
  /** Messages that have passed, before any change. */
  passed: Message[] = [];
  /** Messages kept back. */
  held: Outgoing[] = [];
  /** Set when the client has left. */
  hasLeft = false;
  isClosed = false;
  /** The message sent last had no descriptor, and the client has not read it yet. */
  isUnbounded = false;

  constructor(socket: UnixSocket, upstream: ServerClient) {
    this.socket = socket;
    this.upstream = upstream;
  }

  get init(): Message | undefined {
    return this.passed.find(({ type }) => type === INIT);
  }

  get id(): number {
    return this.init?.u32(16) ?? -1;
  }
}

/** What a mutant changes between the real server and its clients. All of it is optional. */
export interface ServerFault {
  /** Changes the options that the kit gives. */
  settings?(settings: ServerSettings): ServerSettings;
  /** Further options of the server. */
  readonly server?: Partial<HostServerOptions>;
  /** What the client gets for a message. */
  message?(message: Message, client: ProxyClient, proxy: ServerProxy): readonly Outgoing[];
  /** Messages go to clients that have not read the last one. */
  readonly ignoresUnread?: boolean;
  /** A client whose messages wait keeps all others waiting. */
  readonly waitsForSlowest?: boolean;
  /** Messages that a client does not read at once are lost. */
  readonly dropsUnread?: boolean;
  /** Messages that a client does not read are kept for it, all of them. */
  readonly queuesUnread?: boolean;
  /** Data of clients has no effect. */
  readonly ignoresData?: boolean;
  /** Called when a client sends descriptors. */
  onDescriptors?(proxy: ServerProxy): void;
  /** Whether the server does not notice that this client has left. */
  keeps?(client: ProxyClient): boolean;
  /** Called instead of closing a connection that the server has closed. */
  onEnd?(client: ProxyClient, proxy: ServerProxy): void;
}

/** A host server of ours behind a proxy that adds a fault. It polls all sockets each millisecond. */
export class ServerProxy implements RunningServer {
  readonly socket: string;
  readonly clients: ProxyClient[] = [];
  readonly ending: string | undefined;
  /** Descriptors that the fault has made. */
  readonly fds: number[] = [];
  /** What a fault remembers. */
  readonly memory = new Map<string, number>();
  readonly #directory: string;
  readonly #fault: ServerFault;
  readonly #server: HostServer | undefined;
  readonly #listener: UnixListener | undefined;
  readonly #timer: NodeJS.Timeout | undefined;

  constructor(settings: ServerSettings, fault: ServerFault) {
    this.#fault = fault;
    this.#directory = mkdtempSync(join(tmpdir(), 'ivshmem-proxy-'));
    this.socket = join(this.#directory, 'socket');
    const { size, sectionSize, maxPeers, vectors, protocol } = fault.settings?.(settings) ?? settings;
    try {
      this.#server = createHostServer({
        socketPath: join(this.#directory, 'real'),
        size,
        outputSectionSize: sectionSize,
        maxPeers,
        vectors,
        protocol,
        ...fault.server,
      });
    } catch (error) {
      this.ending = `exit code 2: ${(error as Error).message}`;
      return;
    }
    this.#listener = UnixListener.listen(this.socket, { mode: 0o600, backlog: 64 });
    this.#timer = setInterval(() => this.#turn(), 1);
  }

  close(client: ProxyClient): void {
    if (client.isClosed) return;
    client.isClosed = true;
    client.socket.close();
    client.upstream[Symbol.dispose]();
    this.clients.splice(this.clients.indexOf(client), 1);
  }

  #turn(): void {
    for (let socket = this.#listener!.accept(); socket !== null; socket = this.#listener!.accept()) {
      const upstream = new ServerClient(UnixSocket.connect(join(this.#directory, 'real')), new Pace());
      this.clients.push(new ProxyClient(socket, upstream));
    }
    for (const client of [...this.clients]) this.#serve(client);
  }

  #serve(client: ProxyClient): void {
    const { socket, upstream } = client;
    if (!client.hasLeft && socket.peek() === 'data') {
      const fds: number[] = [];
      const bytes = new Uint8Array(4096);
      const length = socket.receive(bytes, fds);
      if (fds.length > 0) this.#fault.onDescriptors?.(this);
      for (const fd of fds) closeFd(fd);
      if (client.isClosed) return;
      if (!this.#fault.ignoresData && length > 0) upstream.socket.send(bytes.subarray(0, length));
    }
    if (!client.hasLeft && socket.peek() === 'end') {
      client.hasLeft = true;
      if (!this.#fault.keeps?.(client)) this.close(client);
    }
    if (client.hasLeft) return;
    this.#forward(client);
    if (client.isClosed || client.queue.length > 0 || !upstream.hasEnded || upstream.pending.length > 0)
      return;
    if (this.#fault.onEnd !== undefined) this.#fault.onEnd(client, this);
    else this.close(client);
  }

  #forward(client: ProxyClient): void {
    const isAnyWaiting = this.#fault.waitsForSlowest && this.clients.some(({ queue }) => queue.length > 0);
    for (;;) {
      this.#flush(client);
      if (client.queue.length > 0 && this.#fault.dropsUnread) {
        client.queue.length = 0;
        client.upstream.release(client.passed.at(-1)!);
      }
      const isWaiting = client.queue.length > 0 && !this.#fault.queuesUnread;
      if (client.isClosed || isWaiting || isAnyWaiting) return;
      client.upstream.pump();
      const message = client.upstream.pending.shift();
      if (message === undefined) return;
      client.passed.push(message);
      client.queue.push(...(this.#fault.message?.(message, client, this) ?? [message]));
    }
  }

  #flush(client: ProxyClient): void {
    while (client.queue.length > 0) {
      const { bytes, fds } = client.queue[0]!;
      if (client.isUnbounded && !this.#fault.ignoresUnread && client.socket.unreadBytes() > 1) return;
      try {
        if (client.socket.send(bytes, fds) !== bytes.length) return;
      } catch {
        // The client has left, which the next turn notices.
        return;
      }
      client.isUnbounded = fds.length === 0;
      client.queue.shift();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    for (const client of [...this.clients]) this.close(client);
    this.#listener?.close();
    this.#server?.close();
    for (const fd of this.fds) closeFd(fd);
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** Our server as it is, in this process. */
export const ownServer: ServerSource = {
  start({ sectionSize, ...settings }) {
    const directory = mkdtempSync(join(tmpdir(), 'ivshmem-own-'));
    const socket = join(directory, 'socket');
    let server: HostServer | undefined;
    let ending: string | undefined;
    try {
      server = createHostServer({ ...settings, socketPath: socket, outputSectionSize: sectionSize });
    } catch (error) {
      ending = `exit code 2: ${(error as Error).message}`;
    }
    return {
      socket,
      ending,
      async [Symbol.asyncDispose]() {
        server?.close();
        rmSync(directory, { recursive: true, force: true });
      },
    };
  },
};

/** Our server behind a proxy. */
export function proxiedServer(fault: ServerFault): ServerSource {
  return { start: (settings) => new ServerProxy(settings, fault) };
}
