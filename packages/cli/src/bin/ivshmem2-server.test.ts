import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { EPOLLIN, mainPoller } from '@ivshmem/linux/wait';
import { ServerConnection } from '@ivshmem/transport';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const program = fileURLToPath(new URL('../../dist/bin/ivshmem2-server.js', import.meta.url));

/** Resolves when the server has closed the connection. */
function ended(connection: ServerConnection): Promise<void> {
  return new Promise((resolve) => {
    mainPoller.add(connection.fd, EPOLLIN, () => {
      let read = connection.read();
      while (typeof read === 'object') read = connection.read();
      if (read !== 'end') return;
      mainPoller.remove(connection.fd);
      connection.close();
      resolve();
    });
  });
}

/** A process that is dead but not yet reaped has ended, too. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await delay(5);
}

describe('ivshmem2-server', () => {
  let directory: string;
  let socket: string;
  let pidFile: string;
  let name: string;
  const started: ChildProcess[] = [];

  beforeEach(() => {
    directory = mkdtempSync('/tmp/ivshmem2-server-');
    socket = join(directory, 'socket');
    pidFile = join(directory, 'pid');
    name = `ivshmem2-server-test-${process.pid}`;
  });

  afterEach(() => {
    if (existsSync(pidFile)) process.kill(Number(readFileSync(pidFile, 'utf8')), 'SIGKILL');
    for (const child of started.splice(0)) if (child.exitCode === null) child.kill('SIGKILL');
    expect(existsSync(`/dev/shm/${name}`)).toBe(false);
    expect(readdirSync(directory)).toEqual([]);
    rmSync(directory, { recursive: true });
  });

  /** A server in the foreground that listens. */
  async function foreground(...options: string[]): Promise<ChildProcess> {
    const child = spawn(process.execPath, [program, '-F', '-S', socket, ...options], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    started.push(child);
    const [line] = await once(child.stdout!, 'data');
    expect(String(line)).toMatch(`listening at ${socket}`);
    return child;
  }

  /** The command run to its end, which for a daemon is when it listens. */
  function run(...options: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
    return new Promise((resolve) => {
      const child = execFile(process.execPath, [program, ...options], (_error, stdout, stderr) => {
        resolve({ status: child.exitCode!, stdout, stderr });
      });
    });
  }

  it.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)(
    'ends on %s with status 0, and leaves nothing',
    async (signal) => {
      const child = await foreground('-M', name, '-l1M', '-o64K', '-V2', '-P1');
      expect(existsSync(`/dev/shm/${name}`)).toBe(true);
      const connection = ServerConnection.connect(socket);
      const end = ended(connection);
      child.kill(signal);
      expect(await once(child, 'exit')).toEqual([0, null]);
      await end;
    },
  );

  it('takes over what one that was killed has left', async () => {
    const first = await foreground('-M', name);
    first.kill('SIGKILL');
    await once(first, 'exit');
    expect(existsSync(socket)).toBe(true);
    expect(existsSync(`/dev/shm/${name}`)).toBe(true);
    const second = await foreground('-M', name);
    expect(await run('-F', '-S', socket)).toEqual({
      status: 1,
      stdout: '',
      stderr: `ivshmem2-server: bind ${socket}: EADDRINUSE: another server answers there: stop it, or choose another path\n`,
    });
    const other = join(directory, 'other');
    expect(await run('-F', '-S', other, '-M', name)).toMatchObject({
      status: 1,
      stderr: expect.stringContaining(`shm_open /${name}: EEXIST: in use by another server`),
    });
    second.kill('SIGTERM');
    expect(await once(second, 'exit')).toEqual([0, null]);
  });

  it('continues when its log is no longer read', async () => {
    const child = await foreground('-v');
    child.stdout!.destroy();
    for (let i = 0; i < 3; i++) {
      const connection = ServerConnection.connect(socket);
      await new Promise<void>((resolve) => mainPoller.add(connection.fd, EPOLLIN, () => resolve()));
      mainPoller.remove(connection.fd);
      connection.close();
    }
    child.kill('SIGTERM');
    expect(await once(child, 'exit')).toEqual([0, null]);
  });

  it('becomes a daemon: returns when clients can connect, and writes its process ID', async () => {
    expect(await run('-S', socket, '-p', pidFile, '-M', name)).toEqual({ status: 0, stdout: '', stderr: '' });
    const end = ended(ServerConnection.connect(socket));
    const text = readFileSync(pidFile, 'utf8');
    expect(text).toMatch(/^\d+\n$/);
    const pid = Number(text);
    expect(isRunning(pid)).toBe(true);
    // Session and process group of its own: no terminal can stop it.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(' ');
    expect([fields[4], fields[5]]).toEqual([String(pid), String(pid)]);
    for (const fd of [0, 1, 2]) expect(readdirSync(`/proc/${pid}/fd`)).toContain(String(fd));
    process.kill(pid, 'SIGTERM');
    await end;
    await until(() => !isRunning(pid));
  });

  it('says why it could not become a daemon', async () => {
    const missing = join(directory, 'missing', 'pid');
    expect(await run('-S', socket, '-p', missing)).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringMatching(
        /^ivshmem2-server: open PID file [^\n]*missing[^\n]*: ENOENT: [^\n]*: create the directory first\n$/,
      ),
    });
    expect(readdirSync(directory)).toEqual([]);
    writeFileSync(socket, 'no socket');
    expect(await run('-S', socket, '-p', pidFile)).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^ivshmem2-server: bind [^\n]*EEXIST[^\n]*\n$/),
    });
    expect(readdirSync(directory)).toEqual(['socket']);
    rmSync(socket);
  });

  it('rejects invalid options before it does anything', async () => {
    expect(await run('-S', socket, '-p', pidFile, '-l', '64K', '-o', '1M')).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(
        /^ivshmem2-server: shared memory of 65536 bytes is too small[^\n]*\nTry [^\n]*-h[^\n]*\n$/,
      ),
    });
  });
});
