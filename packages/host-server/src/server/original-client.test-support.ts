import { closeSync, fstatSync } from 'node:fs';
import { type Mapping, mapShared } from '@ivshmem/linux/memory';
import { UnixSocket } from '@ivshmem/linux/socket';

/** Size of the original client's buffer in bytes, the most it reads at a time. */
const BUFFER_SIZE = 32;

/**
 * A client that follows the rules of the one in the patch series that introduced ivshmem v2, with its own codec and socket
 * handling. Throws on anything that the original would report as an error or fail on.
 *
 * It first reads INIT completely. Then, whenever the socket is readable, it reads once, as much as its buffer holds, and
 * handles at most one message, even if more have arrived. Received descriptors belong to the message that is handled next,
 * and are closed if others arrive before that.
 */
export class OriginalClient {
  readonly socket: UnixSocket;
  id = -1;
  maxPeers = 0;
  vectors = 0;
  protocol = 0;
  outputSectionSize = 0;
  memory: Mapping | undefined;
  /** Eventfds by peer and vector. */
  readonly peers = new Map<number, number[]>();
  /** Interrupts on vector 0 because of departed peers. */
  departures = 0;
  readonly #limit: number;
  readonly #buffer = Buffer.alloc(BUFFER_SIZE);
  #buffered = 0;
  #init = Buffer.alloc(0);
  #initLength = 40;
  #fds: number[] = [];

  /** `limit`: maximum number of bytes that a read returns. */
  constructor(path: string, limit: number) {
    this.socket = UnixSocket.connect(path);
    this.#limit = limit;
  }

  /** Reads once. Returns `wait` if there is nothing to read. */
  onReadable(): 'read' | 'wait' | 'end' {
    const isSetUp = this.#init.length === this.#initLength && this.#initLength >= 40 && this.id !== -1;
    const room = isSetUp ? BUFFER_SIZE - this.#buffered : this.#initLength - this.#init.length;
    const into = new Uint8Array(Math.min(room, this.#limit));
    const fds: number[] = [];
    const received = this.socket.receive(into, fds);
    if (received === -1) return 'wait';
    if (received === 0) return 'end';
    if (fds.length > 0) {
      if (this.#fds.length > 0) throw new Error('descriptors came before the last ones were taken');
      this.#fds = fds;
    }
    if (isSetUp) this.#read(into.subarray(0, received));
    else this.#setUp(into.subarray(0, received));
    return 'read';
  }

  #takeFd(): number {
    const fd = this.#fds.shift() ?? -1;
    if (this.#fds.length > 0) throw new Error('more than one descriptor with a message');
    return fd;
  }

  #setUp(bytes: Uint8Array): void {
    this.#init = Buffer.concat([this.#init, bytes]);
    if (this.#init.length < 40) return;
    const u32 = (index: number) => this.#init.readUInt32LE(index * 4);
    if (u32(0) !== 0 || u32(1) < 40) throw new Error('server sent invalid initial info');
    this.#initLength = u32(1);
    if (this.#init.length < this.#initLength) return;
    if (u32(3) !== 2) throw new Error(`server sent compatible version ${u32(3)}, expecting 2`);
    if (u32(4) > 65535) throw new Error('server sent invalid ID');
    const fd = this.#takeFd();
    this.memory = mapShared(fd, fstatSync(fd).size, { write: true });
    closeSync(fd);
    this.vectors = u32(6);
    if (this.vectors < 1 || this.vectors > 1024) throw new Error('server sent invalid number of vectors');
    this.maxPeers = u32(5);
    this.protocol = u32(7);
    this.outputSectionSize = Number(this.#init.readBigUInt64LE(32));
    this.id = u32(4);
  }

  #read(bytes: Uint8Array): void {
    this.#buffer.set(bytes, this.#buffered);
    this.#buffered += bytes.length;
    if (this.#buffered < 8 || this.#buffered < this.#buffer.readUInt32LE(4)) return;
    const fd = this.#takeFd();
    const type = this.#buffer.readUInt32LE(0);
    const length = this.#buffer.readUInt32LE(4);
    if (type === 1) this.#connect(length, fd);
    else if (type === 2) this.#disconnect(length, fd);
    else throw new Error(`invalid message, type ${type}`);
    this.#buffer.copyWithin(0, length, this.#buffered);
    this.#buffered -= length;
    if (this.#buffered > 0) throw new Error('a message came with another one, and would be handled too late');
  }

  #connect(length: number, fd: number): void {
    if (length < 16) throw new Error('invalid eventfd message size');
    if (fd === -1) throw new Error('eventfd message without descriptor');
    const id = this.#buffer.readUInt32LE(8);
    const vector = this.#buffer.readUInt32LE(12);
    const fds = this.peers.get(id) ?? [];
    if (vector !== fds.length) throw new Error(`received vector ${vector} of peer ${id} out of order`);
    if (fds.length >= this.vectors) throw new Error('too many eventfds received');
    fds.push(fd);
    this.peers.set(id, fds);
  }

  #disconnect(length: number, fd: number): void {
    if (length < 12) throw new Error('invalid peer-gone message size');
    if (fd !== -1) throw new Error('peer-gone message with descriptor');
    const id = this.#buffer.readUInt32LE(8);
    if (!this.peers.has(id) || id === this.id) throw new Error(`invalid peer ${id}`);
    for (const eventFd of this.peers.get(id)!) closeSync(eventFd);
    this.peers.delete(id);
    this.departures++;
  }

  close(): void {
    this.socket.close();
    this.memory?.close();
    for (const fd of [...[...this.peers.values()].flat(), ...this.#fds]) closeSync(fd);
    this.peers.clear();
    this.#fds = [];
  }
}
