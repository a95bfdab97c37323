import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { closeFd, recv } from '@ivshmem/linux';
import { mapPrivate } from '@ivshmem/linux/memory';
import { UnixListener, UnixSocket } from '@ivshmem/linux/socket';
import { EPOLLIN, mainPoller } from '@ivshmem/linux/wait';
import { ServerConnection } from '@ivshmem/transport';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import * as libc from '../../packages/linux/src/libc.ts';

const command = fileURLToPath(new URL('../../packages/cli/dist/bin/ivshmem.js', import.meta.url));
const AF_UNIX = 1;
const SOCK_DGRAM_NONBLOCK = 2 | 0o4000;

type Line = { readonly [field: string]: unknown };

/** A server's process, and its log. */
class Server {
  readonly child: ChildProcess;
  readonly lines: Line[] = [];
  stderr = '';
  readonly exit: Promise<unknown[]>;
  #wake = () => {};

  constructor(child: ChildProcess) {
    this.child = child;
    this.exit = once(child, 'exit');
    createInterface({ input: child.stdout! }).on('line', (text) => {
      this.lines.push(JSON.parse(text));
      this.#wake();
    });
    child.stderr!.on('data', (text) => {
      this.stderr += text;
    });
    this.exit.then(() => this.#wake());
  }

  /** The first line of this type that was not asked for before. */
  async line(type: string): Promise<Line> {
    for (;;) {
      const found = this.lines.findIndex((line) => line.type === type);
      if (found !== -1) return this.lines.splice(found, 1)[0]!;
      if (this.child.exitCode !== null) throw new Error(`the server has ended: ${this.stderr}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

/** What a service manager hears at its NOTIFY_SOCKET. */
class NotifySocket {
  readonly #fd: number;
  readonly #memory = mapPrivate(4096);
  readonly #heard: string[] = [];
  #wake = () => {};

  /** `address` is a path, or `@name` in the abstract namespace. */
  constructor(address: string) {
    const bytes = Buffer.from(`\x01\x00${address.replace(/^@/, '\0')}`, 'latin1');
    this.#fd = libc.socket(AF_UNIX, SOCK_DGRAM_NONBLOCK, 0);
    if (libc.bind(this.#fd, bytes, bytes.length) === -1) throw new Error(`bind: errno ${libc.errno()}`);
    mainPoller.add(this.#fd, EPOLLIN, () => {
      const length = recv(this.#fd, this.#memory.address, 4096, 0);
      this.#heard.push(Buffer.from(this.#memory.buffer.slice(0, length)).toString());
      this.#wake();
    });
  }

  async next(): Promise<string> {
    while (this.#heard.length === 0) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#heard.shift()!;
  }

  close(): void {
    mainPoller.remove(this.#fd);
    closeFd(this.#fd);
    this.#memory.close();
  }
}

/** Resolves with the end of the connection. */
function ended(connection: ServerConnection): Promise<void> {
  return new Promise((resolve) => {
    mainPoller.add(connection.fd, EPOLLIN, () => {
      let read = connection.read();
      for (; typeof read === 'object'; read = connection.read()) if (read.fd !== null) closeFd(read.fd);
      if (read !== 'end') return;
      mainPoller.remove(connection.fd);
      connection.close();
      resolve();
    });
  });
}

describe('operation of the host server', () => {
  let directory: string;
  let socket: string;
  const servers: Server[] = [];
  const open: { close(): void }[] = [];
  const keep = <T extends { close(): void }>(thing: T): T => {
    open.push(thing);
    return thing;
  };

  beforeEach(() => {
    directory = mkdtempSync('/tmp/operation-');
    socket = join(directory, 'socket');
  });

  afterEach(async () => {
    for (const { child, exit } of servers.splice(0)) {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
      await exit;
    }
    for (const thing of open.splice(0)) thing.close();
    rmSync(directory, { recursive: true });
  });

  /** `ivshmem server`, in an environment of its own; descriptor 3 is `passed`, with LISTEN_PID as it has to be. */
  function start(options: string[], environment: Record<string, string> = {}, passed?: number): Server {
    const { PATH } = process.env;
    const script = passed === undefined ? 'exec "$@"' : 'LISTEN_PID=$$ exec "$@"';
    const child = spawn('sh', ['-c', script, 'sh', process.execPath, command, 'server', ...options], {
      stdio: ['ignore', 'pipe', 'pipe', passed ?? 'ignore'],
      env: { PATH, ...environment },
    });
    const server = new Server(child);
    servers.push(server);
    return server;
  }

  async function stop(server: Server): Promise<void> {
    server.child.kill('SIGTERM');
    expect(await server.exit).toEqual([0, null]);
  }

  const run = (...options: string[]) => promisify(execFile)(process.execPath, [command, ...options]);

  it.each(['path', 'abstract'])(
    'notifies the service manager of its state, at a socket that is %s',
    async (kind) => {
      const address = kind === 'path' ? join(directory, 'notify') : `@operation-test-${process.pid}`;
      const manager = keep(new NotifySocket(address));
      const config = join(directory, 'links.json');
      writeFileSync(config, JSON.stringify({ links: [{ socket }] }));
      // In the foreground without -F.
      const server = start(['--config', config], { NOTIFY_SOCKET: address });
      await server.line('listening');
      expect(await manager.next()).toBe('READY=1\nSTATUS=1 link');
      UnixSocket.connect(socket).close();
      server.child.kill('SIGHUP');
      const before = process.hrtime.bigint() / 1000n;
      const [, stamp] = /^RELOADING=1\nMONOTONIC_USEC=(\d+)$/.exec(await manager.next())!;
      const after = process.hrtime.bigint() / 1000n;
      expect(BigInt(stamp!)).toBeGreaterThanOrEqual(before - 1_000_000n);
      expect(BigInt(stamp!)).toBeLessThanOrEqual(after);
      expect(await manager.next()).toBe('READY=1\nSTATUS=1 link');
      await stop(server);
      expect(await manager.next()).toBe('STOPPING=1');
      expect(existsSync(socket)).toBe(false);
    },
  );

  it('serves at a socket that the service manager listens at, and leaves it to that', async () => {
    const listener = keep(UnixListener.listen(socket));
    // A client that was faster than the server.
    const early = ServerConnection.connect(socket);
    const end = ended(early);
    const server = start(['-l', '64K'], { LISTEN_FDS: '1', LISTEN_FDNAMES: 'connection' }, listener.fd);
    expect(await server.line('listening')).toMatchObject({ socketPath: socket, size: 65536 });
    await server.line('peer-joined');
    const { stdout } = await run('peers', '-S', socket, '--json');
    expect(JSON.parse(stdout)).toMatchObject({ link: socket, peers: [{ id: 0, pid: process.pid }] });
    await stop(server);
    await end;
    expect(readdirSync(directory)).toEqual(['socket']);
    // The next one takes over the socket while clients keep connecting.
    const client = keep(UnixSocket.connect(socket));
    const next = start(['-S', socket], { LISTEN_FDS: '1' }, listener.fd);
    await next.line('peer-joined');
    client.close();
    await next.line('peer-gone');
    await stop(next);
  });

  it('does not leave a socket of the service manager unserved', async () => {
    const listener = keep(UnixListener.listen(socket));
    const server = start(['-S', join(directory, 'other')], { LISTEN_FDS: '1' }, listener.fd);
    expect(await server.exit).toEqual([1, null]);
    expect(server.stderr).toBe(
      `ivshmem server: LISTEN_FDS: no link uses the socket ${socket}: give it with -S or in the configuration\n`,
    );
    const [a, b] = UnixSocket.pair();
    keep(a);
    keep(b);
    const wrong = start(['-S', join(directory, 'other')], { LISTEN_FDS: '1' }, a.fd);
    expect(await wrong.exit).toEqual([1, null]);
    expect(wrong.stderr).toMatch(/^ivshmem server: LISTEN_FDS, descriptor 3: .*must be a Unix stream socket/);
  });

  it('is a daemon if a PID file is given, also for a service manager that expects one', async () => {
    const pidFile = join(directory, 'pid');
    const server = start(['-S', socket, '-p', pidFile], {
      INVOCATION_ID: 'x',
      NOTIFY_SOCKET: '/nonexistent',
    });
    expect(await server.exit).toEqual([0, null]);
    const end = ended(ServerConnection.connect(socket));
    process.kill(Number(readFileSync(pidFile, 'utf8')), 'SIGTERM');
    await end;
  });

  it('adds and removes links at SIGHUP, and keeps all of them if the file is invalid', async () => {
    const config = join(directory, 'links.json');
    const [a, b, c] = ['a', 'b', 'c'].map((name) => ({ name, socket: join(directory, name) }));
    const write = (...links: object[]) => writeFileSync(config, JSON.stringify({ links }));
    write(a!, { ...b!, maxPeers: 3 });
    const server = start(['-F', '--config', config, '--metrics', '0']);
    const { url } = (await server.line('metrics')) as { url: string };
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/metrics$/);
    const keptEnd = ended(ServerConnection.connect(a!.socket));
    const removedEnd = ended(ServerConnection.connect(b!.socket));
    await server.line('peer-joined');
    await server.line('peer-joined');

    writeFileSync(config, '{"links": [{"socket": "/x", "maxPeers": 1}]}');
    server.child.kill('SIGHUP');
    expect(await server.line('reload-failed')).toMatchObject({
      level: 'error',
      msg: expect.stringContaining(`${config}: links[0].maxPeers: 1 peers`),
    });
    rmSync(config);
    server.child.kill('SIGHUP');
    expect(await server.line('reload-failed')).toMatchObject({ msg: expect.stringContaining('ENOENT') });
    const list = async (link: { socket: string }) => (await run('peers', '-S', link.socket)).stdout;
    expect(await list(b!)).toMatch(/^b: 1 of 3 peers, 1 vector, protocol 0x0000\n/);

    write(a!, c!, { name: 'd', socket: '/nonexistent/d' });
    server.child.kill('SIGHUP');
    expect(await server.line('link-failed')).toMatchObject({ link: 'd' });
    expect(await server.line('reloaded')).toMatchObject({
      added: ['c'],
      removed: ['b'],
      kept: ['a'],
      failed: ['d'],
    });
    await removedEnd;
    const health = await fetch(url.replace('/metrics', '/healthz'));
    expect([health.status, await health.text()]).toEqual([
      503,
      'd: bind /nonexistent/d: ENOENT: no such file or directory: create the directory first\n',
    ]);
    const metrics = await (await fetch(url)).text();
    expect(metrics).toMatch(/^ivshmem_peers\{link="a"\} 1$/m);
    expect(metrics).toMatch(/^ivshmem_peers\{link="c"\} 0$/m);
    expect(metrics).not.toMatch(/^ivshmem_peers\{link="b"\}/m);
    expect(readdirSync(directory).sort()).toEqual(['a', 'c', 'links.json']);
    await stop(server);
    await keptEnd;
    expect(readdirSync(directory)).toEqual(['links.json']);
  });

  it('lists the connected peers, as text and as JSON', async () => {
    const server = start(['-F', '-S', socket, '-n', '3', '-V', '2', '-P', '1', '-l', '64K']);
    await server.line('listening');
    const empty = await run('peers', '-S', socket);
    expect(empty.stdout).toBe(`${socket}: 0 of 3 peers, 2 vectors, protocol 0x0001\n`);
    const end = ended(ServerConnection.connect(socket));
    await server.line('peer-joined');
    const [, header, row] = (await run('peers', '-S', socket)).stdout.split('\n');
    expect(header).toMatch(/^ID +PID +UID +COMMAND +STATE +SINCE +WAITING$/);
    const comm = readFileSync(`/proc/${process.pid}/comm`, 'utf8').trim();
    expect(row!.split(/ {2,}/)).toEqual([
      '0',
      String(process.pid),
      String(process.getuid!()),
      comm,
      'RESET',
      expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      '0',
    ]);
    const { stdout } = await run('peers', '-S', socket, '--json');
    expect(JSON.parse(stdout).peers).toMatchObject([{ id: 0, state: 0, stateName: 'RESET', command: comm }]);
    await stop(server);
    await end;
    await expect(run('peers', '-S', socket)).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringMatching(
        /^ivshmem: .*socket: no server with a control socket listens there: start.*\n$/,
      ),
    });
  });

  it('raises its limit of open files, and reports what does not fit into it', async () => {
    const limited = (limits: string) => {
      const child = spawn(
        'prlimit',
        [`--nofile=${limits}`, process.execPath, command, 'server', '-F', '-S', socket, '-n', '1000'],
        { stdio: ['ignore', 'pipe', 'pipe'] },
      );
      const server = new Server(child);
      servers.push(server);
      return server;
    };
    const tight = limited('128:256');
    expect(await tight.line('warning')).toMatchObject({
      text: expect.stringMatching(
        /^descriptors for \d+ of 1000 peers only: RLIMIT_NOFILE is 256: raise it by LimitNOFILE=/,
      ),
    });
    await stop(tight);
    const wide = limited('128:4096');
    await wide.line('listening');
    const limits = readFileSync(`/proc/${wide.child.pid}/limits`, 'utf8');
    expect(/^Max open files\s+(\d+)/m.exec(limits)![1]).toBe('4096');
    await stop(wide);
    expect(wide.lines.filter(({ type }) => type === 'warning')).toEqual([]);
  });
});
