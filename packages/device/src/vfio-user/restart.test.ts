import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { closeFd, duplicateFd } from '@ivshmem/linux';
import { createMemfd, type Mapping, mapShared } from '@ivshmem/linux/memory';
import { UnixListener, UnixSocket } from '@ivshmem/linux/socket';
import { createEventFd, drainEventFd, Epoll } from '@ivshmem/linux/wait';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { InterruptVectors } from './interrupt-vectors.ts';
import { Journal } from './journal.ts';
import { type EventFdStore, KeptEventFds } from './kept-eventfds.ts';
import { Command, Region } from './messages.ts';
import type { PciDevice } from './pci-device.ts';
import { VfioUserSession } from './session.ts';
import { accessOf, QEMU_CAPABILITIES, u32s, VmmClient } from './vmm-client.test-support.ts';

// A session continues in another process at any point. A process that is killed leaves what leave() leaves: descriptors in the
// store, the journal, and what is in the socket.

const MEMORY_SIZE = 1 << 20;
const VECTORS = 4;

/** Like a service manager: it ignores an open file that it already has, and names survive the process. */
class Store implements EventFdStore {
  readonly kept = new Map<string, number>();

  take(name: string): number | undefined {
    const fd = this.kept.get(name);
    return fd === undefined ? undefined : duplicateFd(fd);
  }

  put(name: string, fd: number): void {
    expect(this.kept.has(name)).toBe(false);
    this.kept.set(name, duplicateFd(fd));
  }

  remove(name: string): void {
    closeFd(this.kept.get(name)!);
    this.kept.delete(name);
  }
}

/** Memory in BAR 0; it counts what it is asked, and can end the process that asks. */
class Memory implements PciDevice {
  readonly configurationSize = 256;
  readonly file = createMemfd('memory', MEMORY_SIZE);
  readonly mapping: Mapping = mapShared(this.file, MEMORY_SIZE, { write: true });
  readonly bytes = new Uint8Array(this.mapping.buffer);
  readonly bars = [
    { size: MEMORY_SIZE },
    undefined,
    { size: MEMORY_SIZE, mapped: { fd: this.file, areas: [{ offset: 0, size: 4096 }] } },
  ];
  writes = 0;
  dies = false;

  readConfiguration(): void {}
  writeConfiguration(): void {}

  readBar(_: number, offset: number, into: Uint8Array): void {
    into.set(this.bytes.subarray(offset, offset + into.length));
  }

  writeBar(_: number, offset: number, bytes: Uint8Array): void {
    this.bytes.set(bytes, offset);
    this.writes++;
    if (this.dies) throw new Death('in the middle of a write');
  }

  reset(): void {
    if (this.dies) throw new Death('in the middle of a reset');
  }

  close(): void {}
}

class Death extends Error {}

let directory: string;
let before: number;
let epoll: Epoll;
let store: Store;
let memory: Mapping;
let device: Memory;
let ours: number;
let vmm: VmmClient;
let session: VfioUserSession | undefined;
let vectors: InterruptVectors;
let ends: (string | null)[];

beforeEach(() => {
  before = readdirSync('/proc/self/fd').length;
  directory = mkdtempSync(join(tmpdir(), 'vfio-user-restart-'));
  epoll = new Epoll();
  store = new Store();
  const file = createMemfd('journal', Journal.SIZE);
  memory = mapShared(file, Journal.SIZE, { write: true });
  closeFd(file);
  device = new Memory();
  ends = [];
  const path = join(directory, 'socket');
  using listener = UnixListener.listen(path);
  vmm = new VmmClient(path, () => epoll.wait(0));
  ours = listener.accept()!.fd;
  start();
});

afterEach(() => {
  crash();
  vmm.close();
  for (const fd of store.kept.values()) closeFd(fd);
  closeFd(ours);
  closeFd(device.file);
  device.mapping.close();
  memory.close();
  epoll.close();
  rmSync(directory, { recursive: true });
  expect(readdirSync('/proc/self/fd')).toHaveLength(before);
});

/** The next process. */
function start(): void {
  const journal = new Journal(memory, 0);
  expect(journal.resume()).toBeNull();
  const kept = new KeptEventFds(store, journal);
  const { vectors: fds, request } = kept.resume(VECTORS);
  vectors = new InterruptVectors(VECTORS, kept, fds);
  session = new VfioUserSession(new UnixSocket(duplicateFd(ours)), epoll, {
    device,
    vectors,
    journal,
    kept,
    requestFds: request,
    attached: () => {},
    ended: (_, violation) => ends.push(violation),
  });
  session.advance();
}

function crash(): void {
  session?.leave();
  session = undefined;
}

function restart(): void {
  crash();
  start();
}

/** Serves what has arrived, and dies in the middle of the first request that reaches the device. */
function dieExecuting(): void {
  device.dies = true;
  expect(() => session!.advance()).toThrow(Death);
  device.dies = false;
  restart();
}

const pattern = (length: number, seed: number) =>
  Buffer.from(Array.from({ length }, (_, i) => (i * 7 + seed) & 0xff));
const writeOf = (offset: number, bytes: Buffer) =>
  Buffer.concat([accessOf(offset, Region.BAR0, bytes.length), bytes]);

describe('a session that another process continues', () => {
  it('has received a part of a request, cut at any byte', () => {
    vmm.version();
    const data = pattern(40, 1);
    const payload = writeOf(8, data);
    const message = Buffer.concat([u32s(Command.REGION_WRITE << 16, 16 + payload.length, 0, 0), payload]);
    for (let cut = 1; cut < message.length; cut++) {
      device.bytes.fill(0);
      message.writeUInt16LE(cut, 0);
      vmm.socket.send(message.subarray(0, cut));
      session!.advance();
      restart();
      session!.advance();
      restart();
      vmm.socket.send(message.subarray(cut));
      expect(vmm.reply(cut, Command.REGION_WRITE).payload).toEqual(payload.subarray(0, 16));
      expect(device.bytes.subarray(8, 48)).toEqual(new Uint8Array(data));
    }
    expect(device.writes).toBe(message.length - 1);
  });

  it('has executed a request and not answered it', () => {
    vmm.version();
    const id = vmm.post(Command.REGION_WRITE, writeOf(0, pattern(4, 9)));
    dieExecuting();
    expect(vmm.reply(id, Command.REGION_WRITE).errno).toBe(0);
    expect([device.writes, ...device.bytes.subarray(0, 4)]).toEqual([2, ...pattern(4, 9)]);
    const reset = vmm.post(Command.DEVICE_RESET);
    dieExecuting();
    expect(vmm.reply(reset, Command.DEVICE_RESET).errno).toBe(0);
    // Exactly one reply to each.
    expect(vmm.socket.receive(new Uint8Array(1), [])).toBe(-1);
  });

  it('has sent a part of a reply', () => {
    vmm.version();
    device.bytes.set(pattern(MEMORY_SIZE, 3));
    const id = vmm.post(Command.REGION_READ, accessOf(0, Region.BAR0, MEMORY_SIZE));
    const chunks: Buffer[] = [];
    for (let bytes = 0; bytes < 32 + MEMORY_SIZE; ) {
      session!.advance();
      restart();
      const chunk = Buffer.alloc(100_000);
      const received = vmm.socket.receive(chunk, []);
      if (received <= 0) continue;
      chunks.push(chunk.subarray(0, received));
      bytes += received;
    }
    const reply = Buffer.concat(chunks);
    expect([reply.readUInt16LE(0), reply.readUInt32LE(4), reply.length]).toEqual([
      id,
      32 + MEMORY_SIZE,
      32 + MEMORY_SIZE,
    ]);
    expect(reply.subarray(32).equals(device.bytes)).toBe(true);
    expect(vmm.read(Region.BAR0, 5, 4)).toEqual(pattern(9, 3).subarray(5));
  });

  it('cannot send its reply yet', () => {
    vmm.version();
    // Nothing is read, so the socket is full at some point.
    const ids = Array.from({ length: 40 }, () =>
      vmm.post(Command.REGION_READ, accessOf(0, Region.BAR0, 10_000)),
    );
    for (let i = 0; i < 60; i++) session!.advance();
    restart();
    for (const id of ids) {
      expect(vmm.reply(id, Command.REGION_READ).payload).toHaveLength(16 + 10_000);
      restart();
    }
  });

  it('has not been attached yet', () => {
    const version = Buffer.from(`\0\0\0\0${QEMU_CAPABILITIES}\0`);
    const header = u32s(Command.VERSION << 16, 16 + version.length, 0, 0);
    vmm.socket.send(header);
    session!.advance();
    restart();
    vmm.socket.send(version);
    session!.advance();
    restart();
    expect(vmm.reply(0, Command.VERSION).errno).toBe(0);
    vmm.post(Command.VERSION, version);
    session!.advance();
    expect(ends).toEqual(['VERSION twice']);
  });

  it('has eventfds of the VMM, and no more of them than are bound', () => {
    vmm.version();
    const fds = [0, 1].map((vector) => vmm.bind(vector));
    restart();
    const rings = () => {
      for (let vector = 0; vector < VECTORS; vector++) vectors.signal(vector);
      return fds.map((fd) => drainEventFd(fd));
    };
    expect([rings(), store.kept.size]).toEqual([[1n, 1n], 2]);
    fds.push(vmm.bind(0));
    restart();
    expect([rings(), store.kept.size]).toEqual([[0n, 1n, 1n], 2]);
    vmm.setIrqs(0x24, 1, 1);
    restart();
    expect([rings(), store.kept.size]).toEqual([[0n, 0n, 1n], 1]);
    vmm.setIrqs(0x21, 0, 0);
    expect([rings(), store.kept.size]).toEqual([[0n, 0n, 0n], 0]);
  });

  it('has received the descriptors of a request, cut at any byte', () => {
    vmm.version();
    const payload = u32s(20, 0x24, 2, 0, 2);
    const message = Buffer.concat([u32s(Command.DEVICE_SET_IRQS << 16, 16 + payload.length, 0, 0), payload]);
    for (let cut = 1; cut < message.length; cut++) {
      const fds = [createEventFd(), createEventFd()];
      message.writeUInt16LE(cut, 0);
      vmm.socket.send(message.subarray(0, cut), fds);
      session!.advance();
      restart();
      restart();
      vmm.socket.send(message.subarray(cut));
      expect(vmm.reply(cut, Command.DEVICE_SET_IRQS).errno).toBe(0);
      restart();
      vectors.signal(0);
      expect(fds.map((fd) => drainEventFd(fd))).toEqual([1n, 0n]);
      vectors.signal(1);
      expect(fds.map((fd) => drainEventFd(fd))).toEqual([0n, 1n]);
      expect(store.kept.size).toBe(2);
      for (const fd of fds) closeFd(fd);
    }
  });

  it('has bound some of the eventfds of a request', () => {
    vmm.version();
    const fds = [createEventFd(), createEventFd()];
    const id = vmm.post(Command.DEVICE_SET_IRQS, u32s(20, 0x24, 2, 1, 2), fds);
    const bind = InterruptVectors.prototype.bind;
    vectors.bind = (vector, fd) => {
      if (vector === 2) {
        closeFd(fd!);
        throw new Death();
      }
      bind.call(vectors, vector, fd);
    };
    expect(() => session!.advance()).toThrow(Death);
    restart();
    expect(vmm.reply(id, Command.DEVICE_SET_IRQS).errno).toBe(0);
    for (const vector of [1, 2]) vectors.signal(vector);
    expect([...fds.map((fd) => drainEventFd(fd)), store.kept.size]).toEqual([1n, 1n, 2]);
    for (const fd of fds) closeFd(fd);
  });

  it('has one eventfd for several vectors, of the same request and of two', () => {
    vmm.version();
    const fd = createEventFd();
    vmm.setIrqs(0x24, 0, 2, [fd, fd]);
    vmm.setIrqs(0x24, 3, 1, [fd]);
    restart();
    for (let vector = 0; vector < VECTORS; vector++) vectors.signal(vector);
    expect([drainEventFd(fd), store.kept.size]).toEqual([3n, 1]);
    vmm.setIrqs(0x24, 0, 2);
    restart();
    for (let vector = 0; vector < VECTORS; vector++) vectors.signal(vector);
    expect([drainEventFd(fd), store.kept.size]).toEqual([1n, 1]);
    closeFd(fd);
  });

  it('keeps the descriptors of pipelined requests apart', () => {
    vmm.version();
    const fd = createEventFd();
    const other = createMemfd('ram', 4096);
    const map = Buffer.alloc(32);
    const requests: [number, Buffer, number[]][] = [
      [Command.DMA_MAP, map, []],
      [Command.DMA_MAP, map, [other]],
      [Command.DEVICE_SET_IRQS, u32s(20, 0x24, 2, 0, 1), [fd]],
      [Command.DMA_UNMAP, Buffer.alloc(24), []],
      [Command.DMA_MAP, map, [fd]],
    ];
    const ids = requests.map(
      ([command, payload, fds]) => [vmm.post(command, payload, fds), command] as const,
    );
    for (const [id, command] of ids) {
      expect(vmm.reply(id, command).errno).toBe(0);
      restart();
    }
    vectors.signal(0);
    expect([drainEventFd(fd), store.kept.size, ends]).toEqual([1n, 1, []]);
    closeFd(fd);
    closeFd(other);
  });

  it('sends the file of a region if the reply with it was not sent', () => {
    vmm.version();
    vmm.post(Command.DEVICE_GET_REGION_INFO, u32s(80, 0, 2, 0, 0, 0, 0, 0));
    // As if the process had been killed right before it sends.
    const send = Journal.prototype.send;
    Journal.prototype.send = () => {
      throw new Death();
    };
    expect(() => session!.advance()).toThrow(Death);
    Journal.prototype.send = send;
    restart();
    const { payload, fds } = vmm.reply(1, Command.DEVICE_GET_REGION_INFO);
    expect([payload.length, fds.length]).toEqual([64, 1]);
  });

  it('has a VMM that has left meanwhile', () => {
    vmm.version();
    vmm.bind(0);
    crash();
    vmm.socket.close();
    start();
    expect([ends, store.kept.size]).toEqual([[null], 0]);
  });

  it('is rejected if the VMM has sent other than eventfds to bind, before and after', () => {
    vmm.version();
    const file = createMemfd('not-an-eventfd', 4096);
    vmm.socket.send(u32s(Command.DEVICE_SET_IRQS << 16, 36, 0, 0), [file]);
    session!.advance();
    restart();
    vmm.socket.send(u32s(20, 0x24, 2, 0, 1));
    session!.advance();
    expect([ends, store.kept.size]).toEqual([['DEVICE_SET_IRQS with a descriptor that is no eventfd'], 0]);
    closeFd(file);
  });
});

describe('a journal with nonsense', () => {
  it('is refused, or a session continues with it, but nothing breaks', () => {
    vmm.version();
    crash();
    const bytes = new Uint8Array(memory.buffer, 0, 4096);
    const words = new Uint32Array(memory.buffer);
    const { request } = new Journal(memory, 0);
    const reply = new DataView(memory.buffer, request.byteOffset + (1 << 20) + 4096, 16);
    let state = 12345;
    const random = (limit: number) => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return (state >>> 8) % limit;
    };
    const oneOf = <T>(...values: T[]): T => values[random(values.length)]!;
    const eventfd = createEventFd();
    const reasons = new Map<string, number>();
    for (let round = 0; round < 3000; round++) {
      const size = 16 + random(60);
      const flags = oneOf(0, 0, 0, 1, random(1 << 24));
      const header = u32s(random(1 << 16) | (random(15) << 16), oneOf(size, size, random(1 << 24)), flags, 0);
      request.set(Buffer.concat([header, Buffer.from(Array.from({ length: 60 }, () => random(256)))]));
      reply.setUint32(4, oneOf(16, 32, random(1 << 24)), true);
      for (let i = 0; i < 100; i++) bytes[random(512)] = random(256);
      const done = oneOf(0, random(16), size, size, random(1 << 21));
      words[15] = (random(9) << 25) | (random(4) << 23) | (random(3) << 21) | done;
      words[14] = oneOf(0, 0, random(64), random(1 << 24));
      if (random(8) === 0) words[15] = random(1 << 24) * 256 + random(256);
      for (let i = 0; i < VECTORS; i++) words[1024 + i] = oneOf(0, 1, random(3), random(1 << 24));
      const journal = new Journal(memory, 0);
      const reason = journal.resume();
      const key = reason?.replace(/\d+/g, 'N') ?? 'continued';
      reasons.set(key, (reasons.get(key) ?? 0) + 1);
      if (reason !== null) continue;
      const swapped: EventFdStore = {
        take: () => (random(2) === 0 ? duplicateFd(oneOf(eventfd, 0)) : undefined),
        put: () => {},
        remove: () => {},
      };
      const [socket, peer] = UnixSocket.pair();
      peer.send(u32s(1, 2, 3));
      const kept = new KeptEventFds(swapped, journal);
      const { vectors: fds, request: requestFds } = kept.resume(VECTORS);
      const found = new InterruptVectors(VECTORS, kept, fds);
      const continued = new VfioUserSession(socket, epoll, {
        device,
        vectors: found,
        journal,
        kept,
        requestFds,
        attached: () => {},
        ended: () => {},
      });
      continued.advance();
      for (let vector = 0; vector < VECTORS; vector++) found.signal(vector);
      peer.close();
      continued.advance();
      continued.close();
    }
    expect(reasons.get('continued')).toBeGreaterThan(200);
    expect([...reasons.keys()].toSorted()).toEqual([
      'continued',
      'has N bytes of a request of N',
      'has a request in phase N',
      'has a request with N descriptors',
      'has a request without a header',
      'has sent N bytes of a reply of N',
    ]);
    closeFd(eventfd);
  });
});
