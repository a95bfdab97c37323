import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fstatSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { check } from '../errors.ts';
import { closeFd, duplicateFd } from '../fd.ts';
import * as libc from '../libc.ts';
import { createMemfd } from '../memory/memfd.ts';
import { AF_UNIX, SOCK_DGRAM, SOCK_NONBLOCK, socketAddress, UnixSocket } from '../socket/unix-socket.ts';
import { descriptorStoreOf, openDescriptorStore } from './descriptor-store.ts';
import { passedDescriptors } from './passed-descriptors.ts';

const openFds = () => readdirSync('/proc/self/fd').length;

/** The service manager's socket, and what it receives. */
class Manager {
  readonly #socket: UnixSocket;

  constructor(path: string) {
    const fd = check(libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0), 'socket', 'test');
    this.#socket = new UnixSocket(fd);
    const address = socketAddress(path, 'bind');
    check(libc.bind(fd, address, address.length), 'bind', 'test');
  }

  /** The next message with its descriptors; null if there is none. */
  receive(): { text: string; fds: number[] } | null {
    const into = new Uint8Array(1024);
    const fds: number[] = [];
    const length = this.#socket.receive(into, fds);
    return length < 0 ? null : { text: Buffer.from(into.subarray(0, length)).toString(), fds };
  }

  close(): void {
    this.#socket.close();
  }
}

describe('the descriptor store', () => {
  let directory: string;
  let path: string;
  let manager: Manager;
  let before: number;
  const environment = () => ({ NOTIFY_SOCKET: path, FDSTORE: '64' });

  beforeEach(() => {
    before = openFds();
    directory = mkdtempSync('/tmp/ivshmem-store-');
    path = join(directory, 'notify');
    manager = new Manager(path);
  });
  afterEach(() => {
    manager.close();
    rmSync(directory, { recursive: true });
    expect(openFds()).toBe(before);
  });

  it('exists only if the service manager has both variables set', () => {
    expect(openDescriptorStore({}, 1)).toBeUndefined();
    expect(openDescriptorStore({ NOTIFY_SOCKET: path }, 1)).toBeUndefined();
    expect(openDescriptorStore({ NOTIFY_SOCKET: path, FDSTORE: '0' }, 1)).toBeUndefined();
    expect(openDescriptorStore({ FDSTORE: '5' }, 1)).toBeUndefined();
    expect(openDescriptorStore(environment(), 1)?.left).toEqual([]);
  });

  it('sends the messages of sd_notify(3), with a duplicate of the descriptor', () => {
    const store = openDescriptorStore(environment(), 1)!;
    const fd = createMemfd('ivshmem-test', 4096);
    const { ino } = fstatSync(fd);
    store.put('memory', fd);
    closeFd(fd);
    store.scope('link é').scope('/run/a:b').put('x', 0);
    store.remove('memory');
    const put = manager.receive()!;
    expect(put.text).toBe('FDSTORE=1\nFDPOLL=0\nFDNAME=ivshmem/memory');
    expect(put.fds.map((received) => fstatSync(received).ino)).toEqual([ino]);
    const scoped = manager.receive()!;
    expect(scoped.text).toBe('FDSTORE=1\nFDPOLL=0\nFDNAME=ivshmem/link%20%c3%a9/%2frun%2fa%3ab/x');
    expect(manager.receive()).toEqual({ text: 'FDSTOREREMOVE=1\nFDNAME=ivshmem/memory', fds: [] });
    expect(manager.receive()).toBeNull();
    for (const received of [...put.fds, ...scoped.fds]) closeFd(received);
    expect(() => store.put('x'.repeat(248), 0)).toThrow(RangeError);
    expect(() => store.put('x', 1_000_000)).toThrow('EBADF');
  });

  it('returns what was left, by scope, once', () => {
    const fds = [0, 0, 0, 0, 0].map((fd) => duplicateFd(fd));
    const names = ['memory', 'port/vector%3a0', 'port/vector%3a0', 'port/peer', 'other/x'];
    const left = fds.map((fd, i) => ({ fd, name: `ivshmem/${names[i]}` }));
    const store = descriptorStoreOf({ socket: path, prefix: 'ivshmem/', left });
    const port = store.scope('port');
    expect([store.left, port.left]).toEqual([['memory'], ['vector:0', 'vector:0', 'peer']]);
    expect([store.scopes, port.scopes]).toEqual([['port', 'other'], []]);
    expect([store.take('memory'), store.take('memory'), store.take('port/peer')]).toEqual([
      fds[0],
      undefined,
      undefined,
    ]);
    expect(port.take('vector:0')).toBe(fds[1]);
    expect(port.left).toEqual(['peer']);
    const thread = descriptorStoreOf(structuredClone(port.handOver()));
    expect([port.left, thread.left]).toEqual([[], ['peer']]);
    expect(thread.take('peer')).toBe(fds[3]);
    store.discardLeft();
    expect(manager.receive()!.text).toBe('FDSTOREREMOVE=1\nFDNAME=ivshmem/other/x');
    expect(manager.receive()).toBeNull();
    for (const fd of [0, 1, 3]) closeFd(fds[fd]!);
  });

  it('gives up on a manager that does not read, and reports one that is gone', () => {
    const store = openDescriptorStore(environment(), 1)!;
    const started = performance.now();
    expect(() => {
      for (let i = 0; i < 10_000; i++) store.remove(`x${i}`);
    }).toThrow(`sendmsg ${path}: EAGAIN`);
    expect(performance.now() - started).toBeGreaterThan(1900);
    while (manager.receive() !== null);
    store.remove('x');
    manager.close();
    expect(() => store.put('x', 0)).toThrow(`connect ${path}: ECONNREFUSED`);
  });

  /** A program in which the modules of this package are loaded as built. */
  function program(text: string, stdio: (number | 'ignore' | 'pipe')[], env: Record<string, string>) {
    const file = new URL('../../dist/process/index.js', import.meta.url).href;
    const script = `import { openDescriptorStore } from ${JSON.stringify(file)};
      const store = openDescriptorStore(process.env, process.pid);
      ${text}`;
    const start = 'LISTEN_PID=$$ exec "$0" --input-type=module -e "$1"';
    return spawn('/bin/sh', ['-c', `export LISTEN_PID; ${start}`, process.execPath, script], {
      stdio: ['ignore', 'pipe', 2 as never, ...(stdio as never[])],
      env: { ...process.env, ...environment(), ...env },
    });
  }

  async function textOf(child: ChildProcess): Promise<string> {
    let text = '';
    child.stdout!.on('data', (chunk) => {
      text += chunk;
    });
    await once(child, 'close');
    return text;
  }

  it('loses nothing to a SIGKILL that follows put(), and hands it to the next process', async () => {
    const first = program(
      `const { openSync, readFileSync } = await import('node:fs');
       for (let i = 0; i < 5; i++) store.put('f' + i, openSync('/proc/self/stat'));
       process.kill(process.pid, 'SIGKILL');`,
      [],
      {},
    );
    const [code, signal] = await once(first, 'close');
    expect([code, signal]).toEqual([null, 'SIGKILL']);
    const stored: number[] = [];
    for (let i = 0; i < 5; i++) {
      const { text, fds } = manager.receive()!;
      expect(text).toBe(`FDSTORE=1\nFDPOLL=0\nFDNAME=ivshmem/f${i}`);
      stored.push(...fds);
    }
    expect(stored).toHaveLength(5);
    const second = program(
      `const { fstatSync, readFileSync } = await import('node:fs');
       const fds = store.left.map((name) => store.take(name));
       const kept = fds.map((fd) => /flags:\\s+(\\d+)/.exec(readFileSync('/proc/self/fdinfo/' + fd, 'latin1'))[1]);
       console.log(JSON.stringify([fds, kept.map((flags) => (Number.parseInt(flags, 8) & 0o2000000) !== 0)]));`,
      stored,
      {
        LISTEN_FDS: '5',
        LISTEN_FDNAMES: ['f0', 'f1', 'f2', 'f3', 'f4'].map((name) => `ivshmem/${name}`).join(':'),
      },
    );
    for (const fd of stored) closeFd(fd);
    expect(JSON.parse(await textOf(second))).toEqual([
      [3, 4, 5, 6, 7],
      [true, true, true, true, true],
    ]);
  });
});

describe('passed descriptors', () => {
  it('have the names of LISTEN_FDNAMES, if they are meant for this process', () => {
    const environment = { LISTEN_FDS: '3', LISTEN_PID: '7', LISTEN_FDNAMES: 'a.socket:ivshmem/memory' };
    expect(passedDescriptors(environment, 7)).toEqual([
      { fd: 3, name: 'a.socket' },
      { fd: 4, name: 'ivshmem/memory' },
      { fd: 5, name: 'unknown' },
    ]);
    expect(passedDescriptors(environment, 8)).toEqual([]);
    expect(passedDescriptors({ LISTEN_FDS: '1', LISTEN_PID: '7' }, 7)).toEqual([{ fd: 3, name: 'unknown' }]);
    for (const LISTEN_FDS of ['-1', 'x', '1.5', ''])
      expect(passedDescriptors({ LISTEN_FDS, LISTEN_PID: '7' }, 7)).toEqual([]);
  });
});
