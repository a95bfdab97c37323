import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fstatSync, readdirSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeFd } from '../fd.ts';
import { createMemfd } from '../memory/memfd.ts';
import { type Mapping, mapShared } from '../memory/memory.ts';
import { StateMemory } from '../memory/state-memory.ts';
import { controlSize, MessageRecord, writeRights } from './message-record.ts';
import { UnixSocket } from './unix-socket.ts';

const MSG_CTRUNC = 8;
const openFds = () => readdirSync('/proc/self/fd').length;

describe('a message record', () => {
  let before: number;
  let sockets: UnixSocket[];
  let memory: Mapping;
  let record: MessageRecord;
  beforeEach(() => {
    before = openFds();
    sockets = UnixSocket.pair();
    const fd = createMemfd('ivshmem-test', 1 << 20);
    memory = mapShared(fd, 1 << 20, { write: true });
    closeFd(fd);
    record = new MessageRecord(memory, 64);
  });
  afterEach(() => {
    for (const socket of sockets) socket.close();
    memory.close();
    expect(openFds()).toBe(before);
  });

  /** What the memory holds, for whichever process looks. */
  const recorded = () => new MessageRecord(memory, 64).length;

  it('holds the number of bytes sent', () => {
    const [a, b] = sockets as [UnixSocket, UnixSocket];
    const data = { address: memory.address + 4096, length: 100 };
    new Uint8Array(memory.buffer, 4096, 100).fill(7);
    expect([record.send(a.fd, data), recorded()]).toEqual([100, 100]);
    const control = writeRights(memory, 512, [0, 1]);
    expect([record.send(a.fd, data, control), record.length]).toEqual([100, 100]);
    const into = new Uint8Array(200);
    const fds: number[] = [];
    // The kernel does not merge what has descriptors with what comes after.
    expect([b.receive(into, fds), b.receive(into, fds), fds.length]).toEqual([200, -1, 2]);
    expect(fds.map((fd) => fstatSync(fd).ino)).toEqual([0, 1].map((fd) => fstatSync(fd).ino));
    for (const fd of fds) closeFd(fd);
  });

  it('holds a part of a message that does not fit, then 0', () => {
    const [a] = sockets as [UnixSocket];
    const data = { address: memory.address + 4096, length: 900_000 };
    const sent = record.send(a.fd, data);
    expect(sent).toBeGreaterThan(0);
    expect(sent).toBeLessThan(900_000);
    expect(recorded()).toBe(sent);
    expect([record.send(a.fd, data), recorded()]).toEqual([0, 0]);
    sockets[1]!.close();
    expect(() => record.send(a.fd, data)).toThrow(/sendmmsg fd \d+: EPIPE/);
    expect(recorded()).toBe(0);
  });

  it('holds the number of bytes received', () => {
    const [a, b] = sockets as [UnixSocket, UnixSocket];
    const data = { address: memory.address + 4096, length: 10 };
    const control = { address: memory.address + 512, length: controlSize(1) };
    expect([record.receive(b.fd, data), recorded()]).toEqual([-1, 0]);
    a.send(Uint8Array.of(1, 2, 3), [0]);
    expect([record.receive(b.fd, data, control), recorded(), record.controlLength]).toEqual([3, 3, 24]);
    closeFd(new Int32Array(memory.buffer, 512 + 16, 1)[0]!);
    expect([...new Uint8Array(memory.buffer, 4096, 3)]).toEqual([1, 2, 3]);
    a.send(Uint8Array.of(4), [0, 1]);
    expect([record.receive(b.fd, data), record.flags & MSG_CTRUNC]).toEqual([1, MSG_CTRUNC]);
    a.close();
    expect([record.receive(b.fd, data), recorded()]).toEqual([0, 0]);
    expect(() => record.receive(-1, data)).toThrow('recvmmsg fd -1: EBADF');
  });

  it('has a note that begins with a length of 0, and that the kernel leaves alone', () => {
    const [a, b] = sockets as [UnixSocket, UnixSocket];
    const data = { address: memory.address + 4096, length: 10 };
    expect([record.note, record.length]).toEqual([0, 0]);
    for (const note of [1, 2 ** 30 - 1, 0x155_5555, 0]) {
      record.begin(note);
      expect([record.note, record.length]).toEqual([note, 0]);
      expect([record.send(a.fd, data), record.receive(b.fd, data)]).toEqual([10, 10]);
      expect([record.note, record.length, new MessageRecord(memory, 64).note]).toEqual([note, 10, note]);
    }
  });

  it('agrees with what has arrived when the sender is killed at any moment', async () => {
    const built = (path: string) => JSON.stringify(new URL(`../../dist/${path}`, import.meta.url).href);
    const script = `
      import { StateMemory } from ${built('memory/index.js')};
      import { MessageRecord } from ${built('socket/index.js')};
      const state = StateMemory.adopt(4, 'test', 1);
      const { buffer, address } = state.mapping;
      const slots = [0, 1].map((i) => new MessageRecord(state.mapping, 128 + 128 * i));
      // The sum before slot i, and which of the two is in use.
      const before = new Float64Array(buffer, 512, 2);
      const used = new Uint32Array(buffer, 576, 1);
      console.log('ready');
      for (;;) {
        const next = 1 - used[0];
        const total = before[used[0]] + slots[used[0]].length;
        slots[next].reset();
        before[next] = total;
        Atomics.store(used, 0, next);
        slots[next].send(3, { address: address + 4096, length: 1 + (total % 4000) });
      }`;
    const into = new Uint8Array(16384);
    for (let round = 0; round < 8; round++) {
      using state = StateMemory.create('test', 1, 16384);
      const [ours, theirs] = UnixSocket.pair();
      const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
        stdio: ['ignore', 'pipe', 'inherit', theirs.fd, state.fd],
      });
      await once(child.stdout!, 'data');
      let arrived = 0;
      const read = () => {
        const length = ours.receive(into, []);
        if (length > 0) arrived += length;
        return length > 0;
      };
      while (arrived === 0) read();
      const deadline = performance.now() + Math.random() * 40;
      while (performance.now() < deadline || arrived === 0) read();
      child.kill('SIGKILL');
      await once(child, 'close');
      while (read());
      const used = new Uint32Array(state.mapping.buffer, 576, 1)[0]!;
      const total = new Float64Array(state.mapping.buffer, 512, 2)[used]!;
      expect(total + new MessageRecord(state.mapping, 128 + 128 * used).length).toBe(arrived);
      ours.close();
      theirs.close();
    }
  }, 60_000);
});
