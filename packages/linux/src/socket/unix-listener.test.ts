import {
  existsSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeFd } from '../fd.ts';
import { createMemfd } from '../memory/memfd.ts';
import { UnixListener } from './unix-listener.ts';
import { UnixSocket } from './unix-socket.ts';

const openFds = () => readdirSync('/proc/self/fd').length;

describe('UnixListener', () => {
  let directory: string;
  let path: string;
  let before: number;

  beforeEach(() => {
    directory = mkdtempSync('/tmp/unix-listener-');
    path = join(directory, 'socket');
    before = openFds();
  });

  afterEach(() => {
    expect(openFds()).toBe(before);
    rmSync(directory, { recursive: true });
  });

  /** The socket file of a dead process. */
  function leaveStaleSocket(): void {
    const listener = UnixListener.listen(`${path}.dead`);
    renameSync(listener.path, path);
    listener.close();
    expect(existsSync(path)).toBe(true);
  }

  it('accepts clients one by one, and leaves nothing behind', () => {
    const listener = UnixListener.listen(path);
    expect(listener.accept()).toBeNull();
    const clients = [UnixSocket.connect(path), UnixSocket.connect(path)];
    const accepted = [listener.accept()!, listener.accept()!];
    expect(listener.accept()).toBeNull();
    clients[1]!.send(Uint8Array.of(5));
    const into = new Uint8Array(1);
    expect(accepted[0]!.receive(into, [])).toBe(-1);
    expect(accepted[1]!.receive(into, [])).toBe(1);
    expect(accepted[0]!.peerCredentials().pid).toBe(process.pid);
    for (const socket of [...clients, ...accepted]) socket.close();
    listener.close();
    listener.close();
    expect(readdirSync(directory)).toEqual([]);
  });

  it.each([
    [undefined, 0o600],
    [0o660, 0o660],
    [0o666, 0o666],
  ])('mode %o makes permissions %o', (mode, expected) => {
    const umask = process.umask();
    using _listener = UnixListener.listen(path, mode === undefined ? {} : { mode });
    expect(statSync(path).mode & 0o777).toBe(expected);
    expect(process.umask()).toBe(umask);
  });

  it('replaces the socket of a dead process', () => {
    leaveStaleSocket();
    using listener = UnixListener.listen(path);
    using _client = UnixSocket.connect(path);
    const accepted = listener.accept();
    expect(accepted).not.toBeNull();
    accepted?.close();
  });

  it('does not replace or disturb a running server', () => {
    using first = UnixListener.listen(path);
    expect(() => UnixListener.listen(path)).toThrow(`bind ${path}: EADDRINUSE: another server answers there`);
    expect(first.accept()).toBeNull();
    using _client = UnixSocket.connect(path);
    first.accept()!.close();
  });

  it('rejects the path of another kind of file, and leaves that unchanged', () => {
    writeFileSync(path, 'precious');
    expect(() => UnixListener.listen(path)).toThrow(`bind ${path}: EEXIST`);
    expect(statSync(path).size).toBe(8);
    expect(() => UnixListener.listen(join(directory, 'missing', 'socket'))).toThrow('ENOENT');
    expect(() => UnixListener.listen(join(directory, 'x'.repeat(107)))).toThrow('ENAMETOOLONG');
    expect(readdirSync(directory)).toEqual(['socket']);
  });

  it('removes only its own socket file', async () => {
    const listener = UnixListener.listen(path);
    rmSync(path);
    const successor = createServer().listen(path);
    await new Promise((resolve) => successor.once('listening', resolve));
    listener.close();
    expect(existsSync(path)).toBe(true);
    await new Promise((resolve) => successor.close(resolve));
  });

  it.runIf(process.geteuid?.() === 0)('assigns a group to its socket file before clients can connect', () => {
    const listener = UnixListener.listen(path, { mode: 0o660, group: 54321 });
    const { mode, uid, gid } = statSync(path);
    expect([mode & 0o777, uid, gid]).toEqual([0o660, process.getuid!(), 54321]);
    listener.close();
  });

  it('does not follow a symbolic link to listen', () => {
    symlinkSync(join(directory, 'elsewhere'), path);
    expect(() => UnixListener.listen(path, { mode: 0o660 })).toThrow(`bind ${path}: EEXIST`);
    expect(readdirSync(directory)).toEqual(['socket']);
  });

  it('adopts the socket of another owner, who keeps it', () => {
    const owner = UnixListener.listen(path);
    const adopted = UnixListener.adopt(owner.fd);
    expect(adopted.path).toBe(path);
    const client = UnixSocket.connect(path);
    const accepted = adopted.accept()!;
    expect(accepted.peerCredentials().pid).toBe(process.pid);
    adopted.close();
    expect(existsSync(path)).toBe(true);
    const second = UnixSocket.connect(path);
    owner.accept()!.close();
    for (const socket of [client, accepted, second]) socket.close();
    owner.close();
  });

  it('adopts nothing but a listening Unix stream socket', () => {
    const [a, b] = UnixSocket.pair();
    expect(() => UnixListener.adopt(a.fd)).toThrow('must be a Unix stream socket that listens at a path');
    a.close();
    b.close();
    const memory = createMemfd('test', 4096);
    expect(() => UnixListener.adopt(memory)).toThrow('ENOTSOCK');
    closeFd(memory);
  });
});
