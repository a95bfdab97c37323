import { once } from 'node:events';
import { mkdtempSync, readdirSync, readSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { closeFd } from '@ivshmem/linux';
import { createMemfd } from '@ivshmem/linux/memory';
import { UnixListener, UnixSocket } from '@ivshmem/linux/socket';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { askControl, requestControl } from './control-client.ts';
import { ControlServer } from './control-server.ts';
import { controlDirectories, controlSockets, ownControlDirectory } from './directory.ts';

let directory: string;
let server: ControlServer;
let fdsBefore: number;
const openFds = () => readdirSync('/proc/self/fd').length;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ivshmem-control-'));
  server = ControlServer.listen('test', { directory });
  fdsBefore = openFds();
});

afterEach(() => {
  server.close();
  rmSync(directory, { recursive: true });
});

/** Waits for what another part of this process does in reaction to a client. */
async function until(condition: () => boolean): Promise<void> {
  for (const deadline = performance.now() + 20_000; !condition(); await delay(5)) {
    if (performance.now() > deadline) throw new Error(`not within 20 s: ${condition}`);
  }
}

async function collect(...[path, request, options]: Parameters<typeof requestControl>): Promise<unknown[]> {
  const all: unknown[] = [];
  for await (const { data } of requestControl(path, request, options)) all.push(data);
  return all;
}

/** A memfd that holds a text. */
function memfdOf(text: string): number {
  const fd = createMemfd('ivshmem-test', text.length);
  writeSync(fd, text, 0);
  return fd;
}

function textIn(fd: number): string {
  const bytes = Buffer.alloc(100);
  return bytes.toString('utf8', 0, readSync(fd, bytes, 0, bytes.length, 0));
}

describe('a control socket', () => {
  it('is named after command and process, and accessible to its user only', () => {
    expect(server.path).toBe(join(directory, `test-${process.pid}.ctl`));
    expect(statSync(server.path).mode & 0o777).toBe(0o600);
    server.close();
    server.close();
    expect(readdirSync(directory)).toEqual([]);
  });

  it('answers a request with one message', async () => {
    server.handle('add', ({ a, b }) => Number(a) + Number(b));
    server.handle('later', async () => delay(5, { text: 'línea\n\u2028' }));
    expect(await askControl(server.path, { verb: 'add', a: 2, b: 3 })).toBe(5);
    expect(await askControl(server.path, { verb: 'later' })).toEqual({ text: 'línea\n\u2028' });
    expect(openFds()).toBe(fdsBefore);
  });

  it('answers a client that closes its side for writing, such as socat', async () => {
    server.handle('ping', async () => delay(20, 'pong'));
    const socket = connect({ path: server.path, allowHalfOpen: true });
    socket.end('{"verb":"ping"}\n');
    const [text] = await once(socket.setEncoding('utf8'), 'data');
    expect(text).toBe('{"data":"pong"}\n');
    socket.destroy();
  });

  it('reports errors in one line', async () => {
    server.handle('fail', () => {
      throw Object.assign(new Error('no such link'), { code: 'ENOENT' });
    });
    await expect(askControl(server.path, { verb: 'fail' })).rejects.toThrow(/^\S+\.ctl: no such link$/);
    await expect(askControl(server.path, { verb: 'x' })).rejects.toThrow('unknown verb "x": use fail');
    const nothing = join(directory, 'no.ctl');
    await expect(askControl(nothing, { verb: 'x' })).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('streams messages until the client leaves the loop, and then notifies the handler', async () => {
    let left = false;
    server.handle('count', async (_, client) => {
      for (let i = 0; !client.signal.aborted; i++) {
        client.send(i);
        await delay(1);
      }
      left = true;
    });
    const seen: unknown[] = [];
    for await (const { data } of requestControl(server.path, { verb: 'count' })) {
      seen.push(data);
      if (seen.length === 5) break;
    }
    expect(seen).toEqual([0, 1, 2, 3, 4]);
    await until(() => left && openFds() === fdsBefore);
  });

  it('transmits a long stream to a reader that keeps up', async () => {
    const text = 'x'.repeat(1000);
    server.handle('many', async (_, client) => {
      for (let i = 0; i < 3000; ) {
        if (client.send({ i, text })) i++;
        else await delay(1);
      }
      return 'end';
    });
    const all = await collect(server.path, { verb: 'many' });
    expect(all).toHaveLength(3001);
    expect(all[2999]).toEqual({ i: 2999, text });
  });

  it('passes descriptors in both directions, each with its message', async () => {
    server.handle('swap', async (_, client) => {
      const received = client.takeFds();
      const own = received.map((fd) => memfdOf(`re: ${textIn(fd)}`));
      client.send('none');
      client.send('both', own);
      client.send('none again');
      client.send('second', own.slice(1));
      [...received, ...own].forEach(closeFd);
    });
    const mine = [memfdOf('one'), memfdOf('two')];
    const got: unknown[] = [];
    for await (const { data, fds } of requestControl(server.path, { verb: 'swap' }, { fds: mine })) {
      got.push([data, fds.map(textIn)]);
      fds.forEach(closeFd);
    }
    mine.forEach(closeFd);
    expect(got).toEqual([
      ['none', []],
      ['both', ['re: one', 're: two']],
      ['none again', []],
      ['second', ['re: two']],
    ]);
    await until(() => openFds() === fdsBefore);
  });

  it('closes the descriptors of requests that do not take them, and of clients that leave early', async () => {
    const fd = memfdOf('x');
    server.handle('ignore', () => 'ok');
    server.handle('give', (_, client) => {
      for (let i = 0; i < 100; i++) client.send(i, [fd]);
    });
    const fds = Array.from({ length: 16 }, () => fd);
    expect(await askControl(server.path, { verb: 'ignore' }, { fds })).toBe('ok');
    expect(await askControl(server.path, { verb: 'give' })).toBe(0);
    closeFd(fd);
    await until(() => openFds() === fdsBefore);
  });

  it('gives the credentials of the process that listens, which it cannot choose', async () => {
    server.handle('x', () => null);
    let pid = 0;
    const connected = (credentials: { pid: number }) => {
      pid = credentials.pid;
    };
    await askControl(server.path, { verb: 'x' }, { connected });
    expect(pid).toBe(process.pid);
  });

  it('stops waiting after a time, and at a signal', async () => {
    server.handle('never', (_, client) => once(client.signal, 'abort').then(() => undefined));
    await expect(askControl(server.path, { verb: 'never' }, { timeout: 20 })).rejects.toThrow(
      'no reply within 0.02 s',
    );
    const controller = new AbortController();
    const asked = collect(server.path, { verb: 'never' }, { signal: controller.signal, timeout: null });
    controller.abort(new Error('enough'));
    await expect(asked).rejects.toThrow(/^enough$/);
    await until(() => openFds() === fdsBefore);
  });
});

describe('a hostile client of a control socket', () => {
  const hostile: [string, string][] = [
    ['no JSON', 'GET / HTTP/1.0\n'],
    ['no object', 'null\n'],
    ['no verb', '{"verb":{}}\n'],
    ['a verb of Object', '{"verb":"constructor"}\n'],
    ['a deep array', `${'['.repeat(60_000)}\n`],
  ];
  it.each(hostile)('that sends %s gets an error', async (_, text) => {
    const socket = connect(server.path);
    socket.write(text);
    const [answer] = await once(socket.setEncoding('utf8'), 'data');
    expect(answer).toMatch(/^\{"error":"[^\n]*"\}\n$/);
    await once(socket, 'close');
    expect(openFds()).toBe(fdsBefore);
  });

  it('that sends a request without an end is disconnected', async () => {
    const socket = connect(server.path);
    const closed = new Promise((resolve) => socket.on('error', () => {}).once('close', resolve));
    socket.write('x'.repeat(200_000));
    await closed;
    await until(() => openFds() === fdsBefore);
  });

  it('that reads nothing costs a bounded amount of memory, and is disconnected', {
    timeout: 30_000,
  }, async () => {
    let sent = 0;
    let left = false;
    server.handle('flood', async (_, client) => {
      for (; !client.signal.aborted; await delay(1)) {
        while (client.send('x'.repeat(10_000))) sent++;
      }
      left = true;
    });
    const socket = UnixSocket.connect(server.path);
    socket.send(Buffer.from('{"verb":"flood"}\n'));
    await until(() => left);
    expect(sent).toBeLessThan(300);
    socket.close();
    expect(openFds()).toBe(fdsBefore);
  });

  it('cannot take more than 16 connections, nor keep them', { timeout: 30_000 }, async () => {
    server.handle('ping', () => 'pong');
    const idle = Array.from({ length: 40 }, () => UnixSocket.connect(server.path));
    await until(() => idle.filter((socket) => socket.peek() === 'end').length === 24);
    await until(() => idle.every((socket) => socket.peek() === 'end'));
    for (const socket of idle) socket.close();
    expect(await askControl(server.path, { verb: 'ping' })).toBe('pong');
    expect(openFds()).toBe(fdsBefore);
  });
});

describe('a process that only pretends to be ours', () => {
  const replies: [string, string][] = [
    ['not JSON', '\x1b[2J\n'],
    ['no object', '7\n'],
    ['no data', '{}\n'],
    ['incomplete', '{"data":1'],
    ['without the announced descriptors', '{"data":1,"fds":3}\n'],
    ['with a negative number of descriptors', '{"data":1,"fds":-1}\n'],
  ];
  it.each(replies)('is not believed if its reply is %s', async (_, reply) => {
    const path = join(directory, 'other.ctl');
    const other = createServer((socket) =>
      socket
        .on('error', () => {})
        .resume()
        .end(reply),
    );
    other.listen(path);
    await once(other, 'listening');
    await expect(askControl(path, { verb: 'x' })).rejects.toThrow(/\.ctl: invalid reply: [^\n]+$/);
    other.close();
    await until(() => openFds() === fdsBefore);
  });

  it('cannot fill the memory of its client', async () => {
    const path = join(directory, 'other.ctl');
    const other = createServer((socket) => {
      const flood = (error?: Error | null) => {
        if (!error) socket.write('x'.repeat(1 << 20), flood);
      };
      socket.on('error', () => {});
      flood();
    });
    other.listen(path);
    await once(other, 'listening');
    await expect(askControl(path, { verb: 'x' })).rejects.toThrow('the reply is longer than 16777216 bytes');
    other.close();
  });
});

describe('the runtime directory', () => {
  it('lists the sockets of running processes, and removes those of dead ones', () => {
    const dead = createServer().listen(join(directory, 'net-1.ctl'));
    dead.close();
    // What a process that was killed leaves: a socket that nothing listens at.
    const killed = UnixListener.listen(join(directory, 'net-99.ctl'));
    closeFd(killed.fd);
    const other = ControlServer.listen('other', { directory });
    writeFileSync(join(directory, 'notes.ctl'), 'no socket');
    writeFileSync(join(directory, 'blue.sock'), '');
    const names = () => controlSockets([directory, join(directory, 'missing')]).map(({ name }) => name);
    expect(names()).toContain(`other-${process.pid}`);
    expect(names()).toContain(`test-${process.pid}`);
    expect(names()).not.toContain('net-99');
    expect(readdirSync(directory)).not.toContain('net-99.ctl');
    expect(readdirSync(directory)).toContain('notes.ctl');
    other.close();
  });

  it('keeps apart two processes of one ID', () => {
    const second = ControlServer.listen('test', { directory });
    expect(second.path).toBe(join(directory, `test-${process.pid}-2.ctl`));
    second.close();
  });

  it('is chosen by the variable, or is that of the system or the session', () => {
    expect(controlDirectories({ IVSHMEM_RUNTIME_DIR: '/x', XDG_RUNTIME_DIR: '/y' })).toEqual(['/x']);
    expect(controlDirectories({ XDG_RUNTIME_DIR: '/y' })[0]).toBe('/run/ivshmem');
    const fresh = join(directory, 'new');
    expect(ownControlDirectory({ IVSHMEM_RUNTIME_DIR: fresh })).toBe(fresh);
    expect(statSync(fresh).mode & 0o777).toBe(0o700);
    expect(() => ownControlDirectory({ IVSHMEM_RUNTIME_DIR: join(directory, 'a/b') })).toThrow(
      /^no control socket: this user cannot write to \S+: set IVSHMEM_RUNTIME_DIR to a directory$/,
    );
  });
});
