import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import koffi from 'koffi';
import { describe, expect, it } from 'vitest';
import { check, type SystemCallError } from '../errors.ts';
import { closeFd, duplicateFd } from '../fd.ts';
import { createEventFd } from '../wait/eventfd.ts';
import { UnixListener } from './unix-listener.ts';
import { UnixSocket } from './unix-socket.ts';

const RLIMIT_NOFILE = 7;
const LIMIT = 200n;
const libc = koffi.load(null);
const getrlimit = libc.func('int getrlimit(int, _Out_ void *)');
const setrlimit = libc.func('int setrlimit(int, const void *)');

const openFds = () => readdirSync('/proc/self/fd').length;

/** Runs `action` while this process can open only `free` more descriptors. */
function withFreeDescriptors(free: number, action: () => void): void {
  const old = new BigUint64Array(2);
  check(getrlimit(RLIMIT_NOFILE, new Uint8Array(old.buffer)), 'getrlimit', 'nofile');
  const low = BigUint64Array.of(LIMIT, old[1]!);
  check(setrlimit(RLIMIT_NOFILE, new Uint8Array(low.buffer)), 'setrlimit', 'nofile');
  const fillers: number[] = [];
  try {
    for (;;) fillers.push(duplicateFd(0));
  } catch (error) {
    expect((error as SystemCallError).code).toBe('EMFILE');
    for (const fd of fillers.splice(0, free)) closeFd(fd);
    action();
  } finally {
    for (const fd of fillers) closeFd(fd);
    setrlimit(RLIMIT_NOFILE, new Uint8Array(old.buffer));
  }
}

describe('without descriptors left', () => {
  it('accept() fails with EMFILE, and the client stays pending', () => {
    const directory = mkdtempSync('/tmp/exhaustion-');
    const listener = UnixListener.listen(join(directory, 'socket'));
    const client = UnixSocket.connect(listener.path);
    withFreeDescriptors(0, () => {
      expect(() => listener.accept()).toThrow(
        expect.objectContaining({ code: 'EMFILE', syscall: 'accept4' }),
      );
    });
    const accepted = listener.accept();
    expect(accepted).not.toBeNull();
    for (const end of [accepted!, client, listener]) end.close();
    rmSync(directory, { recursive: true });
  });

  it('receive() closes the descriptors that it got, and reports that others were lost', () => {
    const before = openFds();
    const [a, b] = UnixSocket.pair();
    const event = createEventFd();
    a.send(Uint8Array.of(1), [event, event, event]);
    const fds: number[] = [];
    withFreeDescriptors(1, () => {
      expect(() => b.receive(new Uint8Array(1), fds)).toThrow(
        expect.objectContaining({ code: 'EMFILE', syscall: 'recvmsg' }),
      );
    });
    expect(fds).toEqual([]);
    closeFd(event);
    a.close();
    b.close();
    expect(openFds()).toBe(before);
  });
});
