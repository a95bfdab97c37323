import { readlinkSync } from 'node:fs';
import { closeFd } from '@ivshmem/linux';
import { fileLength, type Mapping, mapShared } from '@ivshmem/linux/memory';
import { UnixListener, UnixSocket } from '@ivshmem/linux/socket';
import { Epoll, type EventHandler, type Poller } from '@ivshmem/linux/wait';
import type { Port } from '@ivshmem/transport';
import {
  decodeServerMessage,
  type InitMessage,
  type MemoryLayout,
  memoryLayout,
  stateName,
} from '@ivshmem/transport/protocol';
import { changedFields } from './memory-map.ts';

/** Lines of text about what a link's participants do, with the bytes. */
export class Recorder implements Disposable {
  /** What was recorded since the last {@link take}. */
  #lines: string[] = [];
  /** Shown in each line, in ms. */
  time = 0;
  #memory: Mapping | undefined;
  #layout: MemoryLayout | undefined;
  #before = new Uint8Array(0);

  /** Adds a line, and one more for every 16 further bytes. */
  add(who: string, what: string, bytes: Uint8Array = new Uint8Array(0), meaning = ''): void {
    const rows = [];
    for (let i = 0; i === 0 || i < bytes.length; i += 16) {
      rows.push([...bytes.subarray(i, i + 16)].map((byte) => byte.toString(16).padStart(2, '0')).join(' '));
    }
    const head = `${`${this.time}`.padStart(4)} ms  ${who}  ${what}`;
    for (const [i, row] of rows.entries()) {
      const note = i === 0 && meaning !== '' ? `  ${meaning}` : '';
      this.#lines.push(`${(i === 0 ? head : '').padEnd(66)}${row.padEnd(47)}${note}`.trimEnd());
    }
  }

  take(): string[] {
    return this.#lines.splice(0);
  }

  /** From now on, changes of the memory that comes with this message are recorded. */
  watch({ maxPeers, outputSectionSize }: InitMessage, fd: number): void {
    if (this.#memory !== undefined) return;
    this.#layout = memoryLayout(fileLength(fd), maxPeers, outputSectionSize);
    this.#memory = mapShared(fd, this.#layout.size);
    this.#before = new Uint8Array(this.#memory.buffer).slice();
  }

  /** Records what has changed in the memory since the last call, as stores by `who`. */
  stores(who: string): void {
    if (this.#memory === undefined || this.#layout === undefined) return;
    const now = new Uint8Array(this.#memory.buffer).slice();
    for (const { name, offset, length } of changedFields(this.#layout, this.#before, now)) {
      const bytes = now.subarray(offset, offset + length);
      const isState = name.startsWith('state table');
      const shown = bytes.every((byte) => byte === 0) ? bytes.subarray(0, 16) : bytes;
      const cut = shown.length < length ? `${length} zeros in all` : '';
      const at = `0x${offset.toString(16).padStart(4, '0')}`;
      this.add(who, `stores at ${at}  ${name}`, shown, isState ? stateName(bytes[0]!) : cut);
    }
    this.#before = now;
  }

  [Symbol.dispose](): void {
    this.#memory?.close();
  }
}

/** Records what a port's user does: states, doorbells, and the interrupts and events that it gets. */
export function recordPort(port: Port, who: string, recorder: Recorder): void {
  recordState(port, who, recorder);
  const ring = port.ring.bind(port);
  const { onInterrupt, onEvent } = port;
  port.ring = (peer, vector) => {
    recorder.stores(who);
    const isThere = ring(peer, vector);
    recorder.add(who, `rings peer ${peer}, vector ${vector}${isThere ? '' : ': it is not connected'}`);
    return isThere;
  };
  port.onInterrupt = (handler) =>
    onInterrupt.call(port, (vector) => {
      recorder.add(who, `is interrupted on vector ${vector}`);
      handler(vector);
    });
  port.onEvent = (handler) =>
    onEvent.call(port, (event) => {
      if (event.type !== 'provider-gone') recorder.add(who, `takes the news: ${event.type} (${event.peer})`);
      handler(event);
    });
}

/** Records stores before a state is published apart from it: the section is initialised before READY. */
function recordState(port: Port, who: string, recorder: Recorder): void {
  const { get, set } = stateOf(port);
  Object.defineProperty(port, 'state', {
    get: () => get.call(port),
    set(value: number) {
      recorder.stores(who);
      set.call(port, value);
      recorder.stores(who);
    },
  });
}

function stateOf(port: Port) {
  for (let object: object = port; object !== null; object = Object.getPrototypeOf(object)) {
    const { get, set } = Object.getOwnPropertyDescriptor(object, 'state') ?? {};
    if (get !== undefined && set !== undefined) return { get, set };
  }
  throw new Error('the port has no state');
}

/** Handles events only in `step`, and those of timers never: whether one has expired depends on the machine. */
export class SteppedPoller implements Poller, Disposable {
  readonly #epoll = new Epoll();

  add(fd: number, events: number, handler: EventHandler): void {
    if (!readlinkSync(`/proc/self/fd/${fd}`).includes('timerfd')) this.#epoll.add(fd, events, handler);
  }

  modify(fd: number, events: number): void {
    this.#epoll.modify(fd, events);
  }

  remove(fd: number): void {
    this.#epoll.remove(fd);
  }

  /** Handles what is ready. Returns whether anything was. */
  step(): boolean {
    return this.#epoll.wait(0) > 0;
  }

  [Symbol.dispose](): void {
    this.#epoll.close();
  }
}

/** Stands between a host server and one client, and records the messages that it passes on. */
export class Relay implements Disposable {
  readonly #listener: UnixListener;
  readonly #serverPath: string;
  readonly #client: string;
  readonly #recorder: Recorder;
  #ended = false;
  #sockets: { readonly server: UnixSocket; readonly client: UnixSocket } | undefined;

  /** Listens at `path` for one client, which is called `client` in the recording. */
  constructor(path: string, serverPath: string, client: string, recorder: Recorder) {
    this.#listener = UnixListener.listen(path);
    this.#serverPath = serverPath;
    this.#client = client;
    this.#recorder = recorder;
  }

  /** Connects to the server if the client has, and passes on what there is. Returns whether there was anything. */
  step(): boolean {
    if (this.#sockets === undefined) {
      const client = this.#listener.accept();
      if (client === null) return false;
      this.#recorder.add(this.#client, 'connects to the server');
      this.#sockets = { client, server: UnixSocket.connect(this.#serverPath) };
      return true;
    }
    const { client, server } = this.#sockets;
    if (this.#ended) return false;
    if (client.peek() === 'end') {
      this.#recorder.add(this.#client, 'closes the connection');
      this.#ended = true;
      client.close();
      server.close();
      return true;
    }
    let passed = false;
    while (this.#pass(server, client)) passed = true;
    return passed;
  }

  /** Passes on one message. The server sends whole messages only. */
  #pass(server: UnixSocket, client: UnixSocket): boolean {
    const bytes = new Uint8Array(64);
    const fds: number[] = [];
    if (server.receive(bytes.subarray(0, 8), fds) !== 8) return false;
    const length = bytes[4]!;
    server.receive(bytes.subarray(8, length), fds);
    const message = decodeServerMessage(bytes.subarray(0, length));
    const name = { init: 'INIT', 'event-fd': 'EVENT_FD', 'peer-gone': 'PEER_GONE' }[message.type];
    const carries = { init: 'the memory', 'event-fd': 'an eventfd', 'peer-gone': '' }[message.type];
    const meaning = message.type === 'event-fd' ? `peer ${message.id}, vector ${message.vector}` : '';
    const to = `sends ${name} to ${this.#client}${carries === '' ? '' : `, with ${carries}`}`;
    this.#recorder.add('server', to, bytes.subarray(0, length), meaning);
    if (message.type === 'init') this.#recorder.watch(message, fds[0]!);
    client.send(bytes.subarray(0, length), fds);
    for (const fd of fds) closeFd(fd);
    return true;
  }

  [Symbol.dispose](): void {
    this.#sockets?.client.close();
    this.#sockets?.server.close();
    this.#listener.close();
  }
}
