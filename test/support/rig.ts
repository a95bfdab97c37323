import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Netns, openPacketSocket, type PacketSocket, setIpv6 } from '@ivshmem/linux/network';
import { COMMAND, type Exit, type Line, Program } from './program.ts';

export const TAP = 'ivn0';

export interface RigOptions {
  /** Of each output section, in bytes. */
  readonly outputSectionSize?: number;
  readonly vectors?: number;
  /** Bytes; default: that of the section size. */
  readonly mtu?: number;
  /** Further arguments for both ends. */
  readonly net?: readonly string[];
  /** Keeps the kernel silent: nothing is on the link but what the test puts there. */
  readonly silent?: boolean;
  /** Runs both ends under `ivshmem supervise`, with these arguments. */
  readonly supervised?: boolean | readonly string[];
}

export type End = 0 | 1;

/** A host server and two links on it, three processes; a network namespace for each link. */
export class Rig {
  readonly directory = mkdtempSync(join(tmpdir(), 'ivshmem-test-'));
  readonly socket = join(this.directory, 'socket');
  readonly namespaces = [Netns.create(), Netns.create()] as const;
  readonly peers: Program[] = [];
  server!: Program;
  readonly #options: RigOptions;

  constructor(options: RigOptions = {}) {
    this.#options = options;
    if (options.silent) {
      // What is made later inherits this.
      for (const netns of this.namespaces) netns.run(() => setIpv6('default', false));
    }
  }

  /** With everything started and the carrier on. */
  static async up(options: RigOptions = {}): Promise<Rig> {
    const rig = new Rig(options);
    try {
      await rig.startServer();
      rig.startPeer(0);
      rig.startPeer(1);
      await rig.bothUp();
      return rig;
    } catch (error) {
      await rig.close();
      throw error;
    }
  }

  /** `outputSectionSize` as in the options, unless it is given. */
  async startServer(outputSectionSize = this.#options.outputSectionSize ?? 0x100000): Promise<Program> {
    const { vectors = 2 } = this.#options;
    const argv = ['server', '-F', '--json', '-S', this.socket, '-P', '1', '-V', String(vectors)];
    argv.push('-o', String(outputSectionSize), '-l', String(outputSectionSize * 4));
    this.server = new Program(argv);
    await this.server.line(({ type }) => type === 'listening');
    return this.server;
  }

  startPeer(end: End, more: readonly string[] = []): Program {
    const { mtu, net = [], supervised = false } = this.#options;
    const argv = ['net', '--json', '--socket', this.socket, '--tap', TAP];
    const arguments_ = supervised === true ? [] : supervised;
    if (arguments_) argv.unshift('supervise', '--tries', '1000000', ...arguments_, process.execPath, COMMAND);
    else argv.push('--until-eof');
    argv.push('--netns', this.namespaces[end].path);
    if (mtu !== undefined) argv.push('--mtu', String(mtu));
    if (!this.#options.silent) {
      argv.push('--address', `10.64.0.${end + 1}/24`, '--address', `fd64::${end + 1}/64`);
    }
    this.peers[end] = new Program([...argv, ...net, ...more]);
    return this.peers[end];
  }

  /** Both see the carrier, the first time since line `from` of either; resolves with the lines that say so. */
  bothUp(from: readonly [number, number] = [0, 0]): Promise<Line[]> {
    return Promise.all(this.peers.map((peer, end) => peer.line(isCarrierOn, from[end])));
  }

  /** How many lines both have printed: what comes later is new. */
  get marks(): [number, number] {
    return [this.peers[0]!.lines.length, this.peers[1]!.lines.length];
  }

  packetSocket(end: End): PacketSocket {
    return this.namespaces[end].run(() => openPacketSocket(TAP));
  }

  /** Calls a synchronous function inside a network namespace. */
  inside<T>(end: End, fn: () => T): T {
    return this.namespaces[end].run(fn);
  }

  /** Stops an end in order, and returns its last counters. */
  async stopPeer(end: End): Promise<Line> {
    const peer = this.peers[end]!;
    await peer.stop();
    return peer.lines.findLast(({ event }) => event === 'stats');
  }

  /** Stops everything. Returns how each process ended: ends first, then the server. */
  async close(): Promise<Exit[]> {
    const programs = [...this.peers, this.server].filter((program) => program !== undefined);
    // A stopped process takes no other signal than this.
    for (const program of programs) program.child.kill('SIGCONT');
    const exits = await Promise.all(programs.map((program) => program.stop()));
    for (const netns of this.namespaces) netns.close();
    const left = readdirSync(this.directory);
    rmSync(this.directory, { recursive: true });
    if (left.length > 0) throw new Error(`left behind in ${this.directory}: ${left.join(', ')}`);
    return exits;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

export function isCarrierOn({ event, carrier }: Line): boolean {
  return event === 'state' && carrier;
}
