import { once } from 'node:events';
import { fstatSync, openSync, readdirSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { closeFd, duplicateFd } from '@ivshmem/linux';
import { createMemfd, mapShared } from '@ivshmem/linux/memory';
import { createEventFd, drainEventFd, signalEventFd } from '@ivshmem/linux/wait';
import {
  FrameFlag,
  GsoType,
  ringLayout,
  STATE_TABLE_SIZE,
  State,
  TxQueue,
} from '@ivshmem/transport/protocol';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ByteRing } from './byte-ring.ts';
import { type Capture, startCapture } from './capture.ts';
import { describeFrame } from './frame-description.ts';
import { type PcapngFile, parsePcapng } from './pcapng.test-support.ts';
import { PacketFlag } from './pcapng.ts';

const SECTION = 1 << 20;
const layout = ringLayout(SECTION);

describe('a ring of bytes', () => {
  it('passes bytes on in order, across its end, and takes no more than it has room for', () => {
    const memory = ByteRing.allocate(16);
    const [writer, reader] = [new ByteRing(memory), new ByteRing(memory)];
    for (let round = 0; round < 10; round++) {
      const bytes = Uint8Array.from({ length: 11 }, (_, i) => round * 16 + i);
      expect(writer.write(bytes)).toBe(true);
      expect(writer.write(new Uint8Array(6))).toBe(false);
      const read: number[] = [];
      while (read.length < 11) {
        const part = reader.read(4);
        read.push(...part);
        reader.release(part.length);
      }
      expect(read).toEqual([...bytes]);
    }
    expect(reader.read(4)).toHaveLength(0);
  });
});

describe('a frame with an offload header', () => {
  const header = (flags: number, gsoType: number, gsoSize = 0) =>
    Uint8Array.of(flags, gsoType, 0, 0, gsoSize & 0xff, gsoSize >> 8, 0, 0, 0, 0, 1, 2, 3);

  it.each([
    [0, GsoType.NONE, 0, []],
    [FrameFlag.NEEDS_CSUM, GsoType.NONE, PacketFlag.CHECKSUM_NOT_READY, []],
    [FrameFlag.DATA_VALID, GsoType.NONE, PacketFlag.CHECKSUM_VALID, []],
    [
      FrameFlag.NEEDS_CSUM,
      GsoType.TCPV4 | GsoType.ECN,
      PacketFlag.CHECKSUM_NOT_READY | PacketFlag.SEGMENTATION_OFFLOADED,
      ['offloaded: to be cut into TCP segments of 1448 bytes'],
    ],
    [0, GsoType.UDP_L4, 0, ['offloaded: to be cut into UDP datagrams of 1448 bytes']],
    [
      0,
      77,
      PacketFlag.SEGMENTATION_OFFLOADED,
      ['offloaded: to be cut into segments of unknown type 77 of 1448 bytes'],
    ],
  ])('is marked: flags %i, GSO type %i', (flags, gsoType, expected, comments) => {
    expect(describeFrame(header(flags, gsoType, 1448), 500, true)).toEqual({
      bytes: Uint8Array.of(1, 2, 3),
      length: 490,
      flags: expected,
      comments,
    });
  });

  it('may be missing', () => {
    expect(describeFrame(new Uint8Array(3), 3, true).comments).toEqual(['the offload header is missing']);
    expect(describeFrame(Uint8Array.of(1), 1, false)).toEqual({
      bytes: Uint8Array.of(1),
      length: 1,
      flags: 0,
      comments: [],
    });
  });
});

describe('a capture', () => {
  let memory: number;
  let capture: Capture;
  let file: Promise<PcapngFile>;
  let before: number;
  const openFds = () => readdirSync('/proc/self/fd').length;

  async function start(snapLength?: number): Promise<void> {
    const options = { maxPeers: 2, outputSectionSize: SECTION, link: 'blue' };
    const readOnly = openSync(`/proc/self/fd/${memory}`, 'r');
    capture = await startCapture({
      memory: readOnly,
      ...options,
      ...(snapLength !== undefined && { snapLength }),
    });
    file = (async () => {
      const chunks: Uint8Array[] = [];
      for await (const chunk of capture.bytes()) chunks.push(chunk);
      return parsePcapng(Buffer.concat(chunks));
    })();
  }

  beforeEach(async () => {
    // Node keeps some descriptors of the first worker.
    const worker = new Worker('', { eval: true });
    await once(worker, 'exit');
    before = openFds();
    memory = createMemfd('capture-test', STATE_TABLE_SIZE + 2 * SECTION);
  });

  afterEach(async () => {
    await capture.close();
    expect(await capture.closed).toBeNull();
    closeFd(memory);
    expect(openFds()).toBe(before);
  });

  /** Maps the memory as its peers do. */
  function peers() {
    const table = mapShared(memory, STATE_TABLE_SIZE, { write: true });
    const sections = [0, 1].map((id) =>
      mapShared(memory, SECTION, { offset: STATE_TABLE_SIZE + id * SECTION, write: true }),
    );
    const [one, other] = [sections[0]!, sections[1]!];
    const queue = new TxQueue(one, other, layout);
    queue.initialise();
    const states = new Uint32Array(table.buffer);
    states.fill(State.RUN, 0, 2);
    const send = (byte: number, length: number) => {
      const slot = queue.reserve(length);
      new Uint8Array(one.buffer, slot, length).fill(byte);
      queue.commit(length);
      queue.flush();
    };
    const close = () => {
      for (const mapping of [table, ...sections]) mapping.close();
    };
    return { send, states, close };
  }

  it('writes a pcapng file with both directions, times, lengths and statistics', async () => {
    const { send, close } = peers();
    await start(40);
    const begin = BigInt(Date.now()) * 1_000_000n;
    send(7, 60);
    send(8, 20);
    await waitForFrames(2);
    await capture.close();
    const { interfaces, packets, statistics, application } = await file;
    expect(application).toBe('ivshmem');
    expect(interfaces.map(({ name, description, snapLength }) => [name, description, snapLength])).toEqual([
      ['peer 0 to 1', 'blue, peer 0 to 1', 40],
      ['peer 1 to 0', 'blue, peer 1 to 0', 40],
    ]);
    expect(packets).toMatchObject([
      { interfaceId: 0, length: 60, bytes: Buffer.alloc(40, 7), dropped: 0, comments: [], flags: 0 },
      { interfaceId: 0, length: 20, bytes: Buffer.alloc(20, 8) },
    ]);
    for (const { time } of packets) {
      expect(time).toBeGreaterThanOrEqual(begin - 1_000_000n);
      expect(time).toBeLessThan(begin + 60_000_000_000n);
    }
    expect(statistics).toMatchObject([
      { interfaceId: 0, received: 2, dropped: 0 },
      { interfaceId: 1, received: 0, dropped: 0 },
    ]);
    expect(capture.counters()).toEqual([
      { frames: 2, bytes: 80, missed: 0, invalid: 0 },
      { frames: 0, bytes: 0, missed: 0, invalid: 0 },
    ]);
    close();
  });

  it('sleeps until a doorbell rings, and leaves the doorbell alone', async () => {
    const { send, close } = peers();
    await start();
    const doorbell = createEventFd();
    capture.setDoorbells([duplicateFd(doorbell)]);
    for (let i = 1; i <= 3; i++) {
      send(i, 64);
      signalEventFd(doorbell);
      await waitForFrames(i);
    }
    expect(drainEventFd(doorbell)).toBe(3n);
    capture.setDoorbells([]);
    closeFd(doorbell);
    close();
  });

  it('follows a link that is reset', async () => {
    const one = peers();
    await start();
    one.send(1, 64);
    await waitForFrames(1);
    one.states.fill(State.INIT, 0, 2);
    // Longer than the capture sleeps: it has seen the state. A later frame of index 0 is new to it only then.
    await new Promise((resolve) => setTimeout(resolve, 500));
    const two = peers();
    two.send(2, 64);
    await waitForFrames(2);
    await capture.close();
    expect((await file).packets.map(({ bytes }) => bytes[0])).toEqual([1, 2]);
    expect(capture.counters()[0].missed).toBe(0);
    for (const { close } of [one, two]) close();
  });

  async function waitForFrames(count: number): Promise<void> {
    while (capture.counters()[0].frames < count) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  it('fails for memory that has no sections', async () => {
    await start();
    const small = createMemfd('capture-small', 4096);
    const wrong = startCapture({ memory: small, maxPeers: 2, outputSectionSize: SECTION, link: 'x' });
    await expect(wrong).rejects.toThrow(/shared memory of 4096 bytes is too small/);
    expect(() => fstatSync(small)).toThrow('EBADF');
  });
});
