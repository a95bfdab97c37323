import { execFileSync } from 'node:child_process';
import { fstatSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeFd } from '../fd.ts';
import { createMemfd } from '../memory/memfd.ts';
import { sendDescriptors, sendUnixDatagram } from '../socket/datagram.ts';
import { DescriptorKeeper } from './descriptor-keeper.ts';
import { descriptorStoreOf } from './descriptor-store.ts';
import { NotifySocket } from './notify-socket.ts';

const openFds = () => readdirSync('/proc/self/fd').length;

describe('a service manager', () => {
  let before: number;
  let directory: string;
  let socket: NotifySocket;
  let keeper: DescriptorKeeper;
  beforeEach(() => {
    before = openFds();
    directory = mkdtempSync('/tmp/ivshmem-keeper-');
    socket = NotifySocket.listen(join(directory, 'notify'));
    keeper = new DescriptorKeeper(3);
  });
  afterEach(() => {
    keeper.close();
    socket.close();
    expect(readdirSync(directory)).toEqual([]);
    rmSync(directory, { recursive: true });
    expect(openFds()).toBe(before);
  });

  const send = (text: string, fds: number[] = []) =>
    sendDescriptors(socket.path, Buffer.from(text), fds, 1000);
  const handle = () => keeper.handle(socket.receive()!);
  const names = () => keeper.kept.map(({ name }) => name);

  it('receives messages with their sender', () => {
    expect(statSync(socket.path).mode & 0o777).toBe(0o600);
    expect(socket.receive()).toBeNull();
    sendUnixDatagram(socket.path, Buffer.from('READY=1\nSTATUS=a = b\nnonsense\n'));
    const { pid, variables, fds } = socket.receive()!;
    expect([pid, [...variables], fds]).toEqual([
      process.pid,
      [
        ['READY', '1'],
        ['STATUS', 'a = b'],
      ],
      [],
    ]);
    const script = `require('net'); process.stdout.write(String(process.pid))`;
    const child = execFileSync(process.execPath, ['-e', script]).toString();
    expect(Number(child)).not.toBe(process.pid);
    expect(() => NotifySocket.listen(socket.path)).toThrow('EADDRINUSE');
  });

  it('keeps what a descriptor store puts, and passes it to the next process', () => {
    const store = descriptorStoreOf({ socket: socket.path, prefix: 'ivshmem/', left: [] });
    const memory = createMemfd('ivshmem-test', 4096);
    const { ino } = fstatSync(memory);
    store.put('memory', memory);
    store.put('other', 0);
    closeFd(memory);
    expect([handle(), handle(), names()]).toEqual([0, 0, ['ivshmem/memory', 'ivshmem/other']]);
    store.remove('other');
    handle();
    const next = descriptorStoreOf({
      socket: socket.path,
      prefix: 'ivshmem/',
      left: keeper.duplicates(),
    });
    const taken = next.take('memory')!;
    expect([next.left, fstatSync(taken).ino]).toEqual([[], ino]);
    closeFd(taken);
    expect(names()).toEqual(['ivshmem/memory']);
  });

  it('drops what it is not asked to keep, and what is too much', () => {
    send('FDSTORE=1\nFDNAME=a', [0, 1]);
    send('READY=1', [0, 1]);
    send('FDSTORE=1\nFDNAME=b:c', [0, 1, 2]);
    send('FDSTORE=1\nFDSTOREREMOVE=1\nFDNAME=a', [0]);
    expect([handle(), handle(), handle(), names()]).toEqual([0, 2, 2, ['a', 'a', 'stored']]);
    expect([handle(), names()]).toEqual([1, ['stored']]);
  });

  it('survives messages of any content', () => {
    for (const text of [
      '=',
      '\0',
      '\n\n',
      'FDSTOREREMOVE=1',
      `FDSTORE=1\nFDNAME=${'x'.repeat(9000)}`,
      '\xff',
    ])
      send(text, [0]);
    for (let i = 0; i < 6; i++) handle();
    expect(socket.receive()).toBeNull();
    expect(keeper.kept.length).toBeLessThanOrEqual(3);
  });
});
