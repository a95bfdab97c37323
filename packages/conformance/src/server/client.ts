import { fstatSync, readSync, writeSync } from 'node:fs';
import { closeFd, SystemCallError } from '@ivshmem/linux';
import type { UnixSocket } from '@ivshmem/linux/socket';
import { drainEventFd, isEventFd, signalEventFd } from '@ivshmem/linux/wait';
import { dump } from '../bytes.ts';
import { expectThat, Failure } from '../check.ts';
import { awaitAnswer, type Pace } from '../pace.ts';
import {
  EVENT_FD,
  HEADER_SIZE,
  INIT,
  INIT_FIELDS,
  LONGEST_MESSAGE,
  Message,
  PEER_GONE,
  STATE_TABLE_SIZE,
} from './message.ts';

/** A client of the host server in question. It keeps every message, and looks at each when a check asks for the next one. */
export class ServerClient implements Disposable {
  /** Messages that have arrived and that no check has asked for yet. */
  readonly pending: Message[] = [];
  /** All messages that have been asked for. */
  readonly log: Message[] = [];
  readonly #socket: UnixSocket;
  readonly #pace: Pace;
  readonly #fds = new Set<number>();
  /** Eventfds by peer and vector. */
  readonly #events = new Map<number, number[]>();
  #buffer = new Uint8Array(LONGEST_MESSAGE);
  #filled = 0;
  #arrived: number[] = [];
  #ended = false;
  #isOpen = true;
  #init: Message | undefined;

  constructor(socket: UnixSocket, pace: Pace) {
    this.#socket = socket;
    this.#pace = pace;
  }

  /** The socket, for checks that read or write it in another way. */
  get socket(): UnixSocket {
    return this.#socket;
  }

  /** Takes over descriptors that were received from {@link socket} in another way. */
  own(fds: readonly number[]): void {
    for (const fd of fds) this.#fds.add(fd);
  }

  /** Forgets what has arrived and was not asked for, and closes its descriptors. */
  discard(): void {
    for (const message of this.pending.splice(0)) this.release(message);
  }

  /** Closes the descriptors of a message. */
  release({ fds }: Message): void {
    for (const fd of fds) if (this.#fds.delete(fd)) closeFd(fd);
  }

  get init(): Message {
    if (this.#init === undefined) throw new Failure('INIT', 'no INIT');
    return this.#init;
  }

  get id(): number {
    return this.init.u32(INIT_FIELDS.id);
  }

  get vectors(): number {
    return this.init.u32(INIT_FIELDS.vectors);
  }

  get maxPeers(): number {
    return this.init.u32(INIT_FIELDS.maxPeers);
  }

  get memory(): number {
    const [fd] = this.init.fds;
    if (fd === undefined) throw new Failure('INIT with the shared memory', this.init.toString());
    return fd;
  }

  /** Offset of the output section of `id`, by section 3: output sections end at the end of the memory. */
  sectionOffset(id: number): number {
    return fstatSync(this.memory).size - (this.maxPeers - id) * this.init.sectionSize;
  }

  /** Whether the server has closed the connection. */
  get hasEnded(): boolean {
    this.pump();
    return this.#ended;
  }

  /** Receives what has arrived. A message ends where its header says, or with the read if there is no valid header. */
  pump(): void {
    while (!this.#ended && this.#isOpen) {
      const length = this.#expectedLength();
      if (this.#filled === length && length > HEADER_SIZE) {
        this.pending.push(new Message(this.#buffer.slice(0, this.#filled), this.#arrived));
        this.#filled = 0;
        this.#arrived = [];
        continue;
      }
      const before = this.#arrived.length;
      const received = this.#receive(this.#buffer.subarray(this.#filled, length), this.#arrived);
      this.own(this.#arrived.slice(before));
      if (received === -1) return;
      if (received === 0) this.#ended = true;
      else this.#filled += received;
    }
  }

  #expectedLength(): number {
    if (this.#filled < HEADER_SIZE) return HEADER_SIZE;
    const length = new DataView(this.#buffer.buffer).getUint32(4, true);
    // After a length that is not possible, what follows cannot be told apart: one message of the longest known kind.
    return length > HEADER_SIZE && length <= LONGEST_MESSAGE ? length : 40;
  }

  #receive(into: Uint8Array, fds: number[]): number {
    try {
      return this.#socket.receive(into, fds);
    } catch (error) {
      if (error instanceof SystemCallError && error.code === 'ECONNRESET') return 0;
      throw error;
    }
  }

  /** The next message, or `end`. Throws Failure if none arrives within the limit. */
  async next(expected: string): Promise<Message | 'end'> {
    const next = await awaitAnswer(
      this.#pace,
      () => {
        if (this.pending.length === 0) this.pump();
        return this.pending.shift() ?? (this.#ended ? 'end' : undefined);
      },
      expected,
      () => 'nothing',
    );
    if (next !== 'end') this.log.push(next);
    return next;
  }

  async #nextMessage(expected: string): Promise<Message> {
    const next = await this.next(expected);
    if (next === 'end') throw new Failure(expected, 'the end of the connection');
    return next;
  }

  async expectInit(): Promise<Message> {
    const expected = 'INIT with 1 descriptor';
    const message = await this.#nextMessage(expected);
    const bytes = [dump('the message', message.bytes)];
    expectThat(message.type === INIT && message.length >= 40, expected, message.toString(), bytes);
    expectThat(message.fds.length === 1, expected, message.toString(), bytes);
    this.#init = message;
    return message;
  }

  /** The EVENT_FDs of all vectors of a peer, in order. */
  async expectEvents(peer: number): Promise<void> {
    const events: number[] = [];
    for (let vector = 0; vector < this.vectors; vector++) {
      const expected = `EVENT_FD of peer ${peer}, vector ${vector}, 1 descriptor`;
      const message = await this.#nextMessage(expected);
      const bytes = [dump('the message', message.bytes)];
      const isExpected = message.type === EVENT_FD && message.peer === peer && message.vector === vector;
      expectThat(isExpected && message.fds.length === 1, expected, message.toString(), bytes);
      expectThat(isEventFd(message.fds[0]!), 'an eventfd', 'another descriptor', bytes);
      events.push(message.fds[0]!);
    }
    this.#events.set(peer, events);
  }

  async expectGone(peer: number): Promise<void> {
    const expected = `PEER_GONE of peer ${peer}, no descriptor`;
    const message = await this.#nextMessage(expected);
    const isExpected = message.type === PEER_GONE && message.peer === peer && message.fds.length === 0;
    expectThat(isExpected, expected, message.toString(), [dump('the message', message.bytes)]);
    this.#events.delete(peer);
  }

  /** The end of the connection, without a message before it. */
  async expectEnd(): Promise<void> {
    const next = await this.next('the end of the connection');
    if (next === 'end') return;
    throw new Failure('the end of the connection', next.toString(), [dump('the message', next.bytes)]);
  }

  /** INIT, then the EVENT_FDs of `others`, then its own. */
  async join(others: readonly number[]): Promise<this> {
    await this.expectInit();
    for (const other of others) await this.expectEvents(other);
    await this.expectEvents(this.id);
    return this;
  }

  /** Signals an eventfd that this client has received. */
  ring(peer: number, vector: number): void {
    signalEventFd(this.eventFd(peer, vector));
  }

  eventFd(peer: number, vector: number): number {
    const fd = this.#events.get(peer)?.[vector];
    if (fd === undefined) throw new Failure(`an eventfd of peer ${peer}, vector ${vector}`, 'none');
    return fd;
  }

  /** How often each vector of this client was signalled since the last call. */
  interrupts(): number[] {
    const own = this.#events.get(this.id) ?? [];
    return own.map((fd) => Number(drainEventFd(fd)));
  }

  /** Bytes of the shared memory. */
  read(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    readSync(this.memory, bytes, 0, length, offset);
    return bytes;
  }

  write(offset: number, bytes: Uint8Array): void {
    writeSync(this.memory, bytes, 0, bytes.length, offset);
  }

  state(id: number): number {
    const [a, b, c, d] = this.read(4 * id, 4);
    return (a! | (b! << 8) | (c! << 16) | (d! << 24)) >>> 0;
  }

  publish(state: number, id = this.id): void {
    if (4 * id + 4 <= STATE_TABLE_SIZE) this.write(4 * id, Uint8Array.of(state, 0, 0, 0));
  }

  /** Ends the connection, but keeps memory and eventfds. */
  disconnect(): void {
    this.#isOpen = false;
    this.#socket.close();
  }

  [Symbol.dispose](): void {
    this.disconnect();
    for (const fd of this.#fds) closeFd(fd);
    this.#fds.clear();
  }
}
