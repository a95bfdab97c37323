import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SystemCallError } from '@ivshmem/linux';
import { UnixSocket } from '@ivshmem/linux/socket';
import { type Check, Failure, Skip } from '../check.ts';
import { Journal } from '../journal.ts';
import { awaitAnswer, delay, now, Pace } from '../pace.ts';
import { checkCommand, Program } from '../program.ts';
import type { Random } from '../random.ts';
import type { Subject } from '../runner.ts';
import { ServerClient } from './client.ts';
import { EVENT_FD, INIT, INIT_FIELDS } from './message.ts';

/** How a server is to be started, in the terms of the options of the original one. Sizes in bytes. */
export interface ServerSettings {
  /** `-l` */
  readonly size: number;
  /** `-o` */
  readonly sectionSize: number;
  /** `-n` */
  readonly maxPeers: number;
  /** `-V` */
  readonly vectors: number;
  /** `-P` */
  readonly protocol: number;
}

/** What the kit starts a server with, unless a check asks for something else. */
export const USUAL_SETTINGS: ServerSettings = {
  size: 1 << 20,
  sectionSize: 1 << 16,
  maxPeers: 4,
  vectors: 2,
  protocol: 1,
};

/** A server that listens, or will soon. */
export interface RunningServer extends AsyncDisposable {
  readonly socket: string;
  /** How it has ended; undefined while it runs. */
  readonly ending: string | undefined;
}

/** Starts servers for the checks. */
export interface ServerSource {
  start(settings: ServerSettings): RunningServer;
}

/** A check of a host server. */
export interface ServerCheck extends Check<ServerContext> {
  /** Settings that it needs. Without a command to start a server with, such checks are skipped. */
  readonly settings?: Partial<ServerSettings>;
  /** The check does not need {@link ServerContext.first}, and starts servers itself. */
  readonly startsServers?: boolean;
}

/** What a check of a host server works with. */
export interface ServerContext {
  /** The settings of the server; null if the kit has not started it. */
  readonly settings: ServerSettings | null;
  readonly pace: Pace;
  readonly journal: Journal;
  readonly random: Random;
  /** The only client when the check begins. It has ID 0. */
  readonly first: ServerClient;
  /** Connects one more client, which has read nothing yet. */
  connect(): Promise<ServerClient>;
  /** Connects one more client, which reads everything up to its own eventfds; the peers `others` are connected. */
  join(others: readonly number[]): Promise<ServerClient>;
  /** Throws {@link Skip} if the server has fewer IDs. */
  needPeers(count: number): void;
  /** Starts another server. Throws {@link Skip} if the kit cannot start one. */
  start(settings: Partial<ServerSettings>): RunningServer;
}

const options = ({ size, sectionSize, maxPeers, vectors, protocol }: ServerSettings) => {
  const bytes = (value: number) => (value > 0 && value % 1024 === 0 ? `${value / 1024}K` : `${value}`);
  return `-l ${bytes(size)} -o ${bytes(sectionSize)} -n ${maxPeers} -V ${vectors} -P 0x${protocol.toString(16)}`;
};

/**
 * A host server that the kit starts by a command of the user: `{socket}` becomes the path of its socket, `{options}` (or the
 * end of the command) the options -l, -o, -n, -V, -P. Throws OptionError.
 */
export function serverCommand(command: string): ServerSource {
  checkCommand('--command', command, '{socket}');
  const text = command.includes('{options}') ? command : `${command} {options}`;
  return {
    start(settings) {
      const directory = mkdtempSync(join(tmpdir(), 'ivshmem-check-'));
      const socket = join(directory, 'socket');
      const program = new Program(text.replaceAll('{options}', options(settings)), { '{socket}': socket });
      return {
        socket,
        get ending() {
          return program.ending;
        },
        async [Symbol.asyncDispose]() {
          await program.end();
          rmSync(directory, { recursive: true, force: true });
        },
      };
    },
  };
}

export interface ServerSubjectOptions {
  /** A server that runs already, or how to start one. */
  readonly server: string | ServerSource;
  /** Default: limits for a subject of any speed. */
  readonly pace?: Pace;
}

/** Brings a host server to where each check begins: with one client. */
export class ServerSubject implements Subject<ServerContext> {
  readonly pace: Pace;
  readonly journal = new Journal();
  readonly #source: ServerSource | null;
  readonly #socket: string | null;
  #server: RunningServer | null = null;
  #settings: ServerSettings | null = null;
  #clients: ServerClient[] = [];
  #others: RunningServer[] = [];

  constructor({ server, pace = new Pace() }: ServerSubjectOptions) {
    this.pace = pace;
    this.#source = typeof server === 'string' ? null : server;
    this.#socket = typeof server === 'string' ? server : null;
  }

  async prepare(check: ServerCheck, random: Random, isAfterFailure: boolean): Promise<ServerContext> {
    await this.#closeClients();
    if (check.settings !== undefined || check.startsServers) this.#sourceOrSkip();
    const settings = { ...USUAL_SETTINGS, ...check.settings };
    const isSame = JSON.stringify(settings) === JSON.stringify(this.#settings);
    if (this.#source !== null && (!isSame || isAfterFailure || this.#server?.ending !== undefined)) {
      await this.#stop();
      if (!check.startsServers) this.#server = this.#source.start(settings);
      this.#settings = check.startsServers ? null : settings;
    }
    const first = check.startsServers ? null : await this.#firstClient();
    const join = async (others: readonly number[]) => (await connect()).join(others);
    const connect = async () => {
      this.journal.note(`connect(2), client ${this.#clients.length + 1}`);
      return await this.#connect();
    };
    return {
      settings: this.#source === null ? null : settings,
      pace: this.pace,
      journal: this.journal,
      random,
      first: first as ServerClient,
      connect,
      join,
      needPeers(count) {
        if (first !== null && first.maxPeers < count) throw new Skip(`needs a server for ${count} peers`);
      },
      start: (changes) => {
        const server = this.#sourceOrSkip().start({ ...USUAL_SETTINGS, ...changes });
        this.#others.push(server);
        return server;
      },
    };
  }

  #sourceOrSkip(): ServerSource {
    if (this.#source === null) throw new Skip('needs a server that the kit starts: --command');
    return this.#source;
  }

  /** Connects until the clients of the last check have left, and nothing is announced but this client itself. */
  async #firstClient(): Promise<ServerClient> {
    const end = now() + this.pace.limit;
    for (;;) {
      const client = await this.#connect();
      const isAlone = await this.#settle(client, end);
      if (isAlone || now() > end) return client;
      this.#clients.pop();
      client[Symbol.dispose]();
      await delay(5);
    }
  }

  /** Reads what comes first. Does not judge it: that is for the checks. */
  async #settle(client: ServerClient, end: number): Promise<boolean> {
    for (;;) {
      client.pump();
      const [first, ...rest] = client.pending;
      const id = first?.type === INIT ? first.u32(INIT_FIELDS.id) : undefined;
      const events = rest.filter(({ type }) => type === EVENT_FD);
      if (id !== undefined && events.filter(({ peer }) => peer === id).length >= first!.u32(24)) {
        return id === 0 && events.every(({ peer }) => peer === id);
      }
      if (client.hasEnded) return false;
      if (now() > end) return true;
      await delay(1);
    }
  }

  async #connect(): Promise<ServerClient> {
    const path = this.#socket ?? this.#server!.socket;
    const socket = await awaitAnswer(
      this.pace,
      () => this.#tryConnect(path),
      'a server that accepts connections',
      () => this.#server?.ending ?? 'none',
    );
    const client = new ServerClient(socket, this.pace);
    this.#clients.push(client);
    return client;
  }

  #tryConnect(path: string): UnixSocket | undefined {
    if (this.#server?.ending !== undefined) {
      throw new Failure('a server that accepts connections', `its end: ${this.#server.ending}`);
    }
    try {
      return UnixSocket.connect(path);
    } catch (error) {
      const isStarting =
        this.#server !== null && ['ENOENT', 'ECONNREFUSED'].includes((error as SystemCallError).code);
      if (isStarting || (error as SystemCallError).code === 'EAGAIN') return undefined;
      throw error;
    }
  }

  async #closeClients(): Promise<void> {
    for (const client of this.#clients.splice(0)) client[Symbol.dispose]();
    for (const server of this.#others.splice(0)) await server[Symbol.asyncDispose]();
  }

  async #stop(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    this.#settings = null;
    await server?.[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#closeClients();
    await this.#stop();
  }
}
