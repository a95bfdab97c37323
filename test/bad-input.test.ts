import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { closeFd } from '@ivshmem/linux';
import { createMemfd } from '@ivshmem/linux/memory';
import { createBridge, listInterfaces, Netns, openTap } from '@ivshmem/linux/network';
import { UnixListener } from '@ivshmem/linux/socket';
import { EPOLLIN, mainPoller } from '@ivshmem/linux/wait';
import { ServerConnection } from '@ivshmem/transport';
import { encodeInit } from '@ivshmem/transport/protocol';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Program, run } from './support/program.ts';
import { describeNetwork, describeWhere } from './support/requirements.ts';

const NOBODY = 65534;

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'ivshmem-bad-'));
});

afterAll(() => {
  rmSync(directory, { recursive: true });
});

/** Runs the command, and expects one line on stderr and nothing else. */
async function expectLine(
  argv: readonly string[],
  code: number,
  pattern: RegExp,
  options = {},
): Promise<void> {
  const result = await run(argv, options);
  expect(result).toMatchObject({ code, signal: null, stdout: '' });
  expect(result.stderr).toMatch(/^ivshmem: [^\p{C}]+\n$/u);
  expect(result.stderr).toMatch(pattern);
}

describe('an invalid command line: one line, exit code 2', () => {
  const cases: [string[], RegExp][] = [
    [['--nonsense'], /unknown option '--nonsense'/],
    [['nonsense'], /unknown command 'nonsense'/],
    [['net', '--nonsense'], /unknown option '--nonsense'/],
    [['net', 'more'], /too many arguments/],
    [['demo', '--nonsense'], /unknown option '--nonsense'/],
    [['net', '--socket'], /'-S, --socket <path>' argument missing/],
    [['net', '--socket', ''], /socket "": must be a path of 1 to 107 bytes/],
    [['net', '--socket', `/tmp/${'x'.repeat(103)}`], /must be a path of 1 to 107 bytes, not 108/],
    [['net', '--tap', ''], /interface name "": must not be empty/],
    [['net', '--tap', 'sixteen-bytes-ok'], /has 16 bytes, but may have 15 at most/],
    [['net', '--tap', 'a/b'], /interface name "a\/b": must not have/],
    [['net', '--bridge', '..'], /interface name "..": is reserved/],
    [['net', '--mtu', 'large'], /'large' is invalid. It must be a whole number/],
    [['net', '--mtu', '67'], /MTU 67: must be 68 to 65521/],
    [['net', '--mtu', '65522'], /MTU 65522: must be 68 to 65521/],
    [['net', '--mtu', '-5'], /'-5' is invalid/],
    [['net', '--mac', '02:00:00:00:00'], /MAC address 02:00:00:00:00: must be a unicast address such as/],
    [['net', '--mac', '01:00:00:00:00:00'], /MAC address 01:00:00:00:00:00: must be a unicast address/],
    [['net', '--address', '10.0.0.1'], /"10.0.0.1" is no address with a prefix length: write it like/],
    [['net', '--address', '10.0.0.1/33'], /10.0.0.1\/33/],
    [['net', '--address', '10.0.0.300/8'], /10.0.0.300/],
    [['net', '--busy-poll', '1000001'], /busy-poll time 1000001: must be/],
    [['net', '--stats', '0'], /'0' is invalid. It must be 1 to 86400 seconds/],
    // At a path where nothing can be created: these are found before anything is started.
    [
      ['vm', '--vfio-user', '/nonexistent/vm', '--section-size', '5000'],
      /5000: must be a multiple of \d+, the/,
    ],
    [['vm', '--vfio-user', '/nonexistent/vm', '--section-size', '0'], /sections of 0 bytes are too small/],
    [['vm', '--vfio-user', '/nonexistent/vm', '--section-size', '8G'], /too large: they may have up to 4G/],
    [['vm', '--vfio-user', '/nonexistent/vm', '--tap', 'a/b'], /interface name "a\/b": must not have/],
    [
      ['vm', '--vfio-user', '/nonexistent/vm', '--section-size', '64K', '--mtu', '60000'],
      /allow \d+ at most/,
    ],
    [['vm', '--vfio-user', `/tmp/${'x'.repeat(98)}`], /must be a path of 1 to 107 bytes, not 110/],
    [['device', '--vfio-user', '/nonexistent/a', '--vfio-user', `/${'x'.repeat(110)}`], /not 111/],
    [['device', '--vfio-user', '/nonexistent/a', '--vfio-user', '/nonexistent/a'], /a: is given twice/],
    [['net', '--mac', '\x1b[2J\n02'], /MAC address \uFFFD\[2J\uFFFD02: must be/],
    [['net', '--\u202eevil\x9b2J'], /unknown option '--\uFFFDevil\uFFFD2J'/],
  ];
  it.each(cases)('%j', (argv, pattern) => expectLine(argv, 2, pattern));

  it('in front of which --verbose prints the stack', async () => {
    const { code, stderr } = await run(['net', '--verbose', '--mtu', '1']);
    expect(code).toBe(2);
    expect(stderr).toMatch(/^ivshmem: MTU 1: [^\n]*\nOptionError: MTU 1: [^\n]*\n {4}at /);
  });
});

describe('a host server that cannot start: one line, with a pointer', () => {
  const long = `/tmp/${'x'.repeat(103)}`;
  const cases: [string[], number, RegExp][] = [
    [['-F', '--nonsense'], 2, /nonsense/],
    [['-F', '-Q'], 2, /-Q: unknown option/],
    [['-F', '-l', 'much'], 2, /-l much: must be a size in bytes/],
    [['-F', '-l', '64K', '-o', '1M'], 2, /shared memory of 65536 bytes is too small/],
    [['-F', '-l', '1M', '-o', '1000'], 2, /output sections of 1000 bytes: must be a multiple of 4096/],
    [['-F', '-n', '1'], 2, /1 peers: the state table holds 2 to 1024/],
    [['-F', '-V', '0'], 2, /vectors 0: must be 1 to/],
    [['-F', '-P', '0x10000'], 2, /protocol 65536: must be 0 to 65535/],
    [['-F', '-S', long], 2, /must be a path of 1 to 107 bytes, not 108/],
    [['-F', '-S', '/nonexistent/socket'], 1, /bind \/nonexistent\/socket: ENOENT/],
    [['-F', '-S', '/dev/null'], 1, /bind \/dev\/null: EEXIST: something that is no socket is there/],
    [['-F', '-m', '/nonexistent'], 1, /\/nonexistent/],
  ];
  it.each(cases)('%j', async (argv, code, pattern) => {
    const socket = argv.includes('-S') ? [] : ['-S', join(directory, 'socket')];
    const result = await run(['server', ...argv, ...socket]);
    expect(result).toMatchObject({ code, signal: null, stdout: '' });
    expect(result.stderr).toMatch(/^ivshmem[^\n]*: [^\n]+\n(Try [^\n]*\n)?$/);
    expect(result.stderr).toMatch(pattern);
  });
});

describe('a socket that is no host server: one line, exit code 1', () => {
  const servers: Server[] = [];
  let path: string;

  afterAll(() => {
    for (const server of servers) server.close();
  });

  /** The server of another user. */
  async function listen(name: string, onClient: (socket: Socket) => void): Promise<void> {
    path = join(directory, name);
    const server = createServer((socket) => {
      socket.on('error', () => {});
      onClient(socket);
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(path, resolve));
  }

  const expectRefusal = (pattern: RegExp) => expectLine(['net', '--socket', path], 1, pattern);

  it('there is none', async () => {
    path = join(directory, 'none');
    await expectRefusal(/connect .*none: ENOENT: there is no socket: start a host server/);
  });

  it('it is a file', async () => {
    path = join(directory, 'file');
    writeFileSync(path, '');
    await expectRefusal(/connect .*file: ECONNREFUSED: no host server answers there: start one/);
  });

  it('its server was killed', async () => {
    path = join(directory, 'killed');
    const server = new Program(['server', '-F', '--json', '-S', path]);
    await server.line(({ type }) => type === 'listening');
    await server.stop('SIGKILL');
    await expectRefusal(/connect .*killed: ECONNREFUSED: no host server answers there/);
  });

  it('it speaks HTTP', async () => {
    await listen('http', (socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    await expectRefusal(/host server at .*http: /);
  });

  it('it closes the connection at once', async () => {
    await listen('closes', (socket) => socket.end());
    await expectRefusal(/host server at .*closes: closed the connection at once: it has no room/);
  });

  it('it is silent', async () => {
    await listen('silent', () => {});
    await expectRefusal(/host server at .*silent: no answer in 5000 ms: is it an ivshmem v2 host server\?/);
  });

  it('its memory is smaller than announced', async () => {
    path = join(directory, 'small');
    const memory = createMemfd('small', 0x10000, { seal: false });
    const listener = UnixListener.listen(path);
    mainPoller.add(listener.fd, EPOLLIN, () => {
      const client = listener.accept();
      if (client === null) return;
      const init = { id: 0, maxPeers: 2, vectors: 2, protocol: 1, outputSectionSize: 0x100000 };
      client.send(encodeInit(init), [memory]);
      client.close();
    });
    await expectRefusal(/host server at .*small: shared memory of 65536 bytes is too small/);
    mainPoller.remove(listener.fd);
    listener.close();
    closeFd(memory);
  });
});

describeNetwork('a host server that a link can not use: one line, exit code 1', () => {
  /** `argv` of the server; `others` clients are there before. */
  const cases: [string, string[], number, RegExp][] = [
    ['speaks another protocol', ['-P2', '-o64K'], 0, /offers protocol 0x0002, not 0x0001 .*-P 1/],
    [
      'has no output sections',
      ['-P1', '-o0'],
      0,
      /offers no output sections: start it with, for example, -o 1M/,
    ],
    ['is full', ['-P1', '-o64K'], 2, /closed the connection at once: it has no room for another peer/],
    [
      'gives an ID above 1',
      ['-P1', '-o64K', '-n3'],
      2,
      /gave this peer ID 2, but an Ethernet link has peers 0/,
    ],
  ];
  it.each(cases)('%s', async (_name, argv, others, pattern) => {
    const path = join(directory, 'unusable');
    const server = new Program(['server', '-F', '--json', '-S', path, ...argv]);
    await server.line(({ type }) => type === 'listening');
    using netns = Netns.create();
    const clients = Array.from({ length: others }, () => ServerConnection.connect(path));
    await expectLine(['net', '--socket', path, '--netns', netns.path], 1, pattern);
    expect(netns.run(listInterfaces).map(({ name }) => name)).not.toContain('ivn0');
    for (const client of clients) client.close();
    expect(await server.stop()).toMatchObject({ code: 0, stderr: '' });
  });
});

describeNetwork('an interface that can not be: one line, exit code 1 or 2', () => {
  let server: Program;
  let socket: string;
  let netns: Netns;
  let before: string[];

  beforeAll(async () => {
    socket = join(directory, 'server');
    server = new Program(['server', '-F', '--json', '-S', socket, '-P1', '-o64K', '-V2']);
    await server.line(({ type }) => type === 'listening');
    netns = Netns.create();
    netns.run(() => createBridge('br0'));
    before = netns.run(listInterfaces).map(({ name }) => name);
  });

  afterAll(async () => {
    netns.close();
    await server.stop();
  });

  const cases: [string, string[], RegExp, code?: number][] = [
    ['its name is taken', ['--tap', 'br0'], /interface br0: EINVAL: .* is no TAP: choose another name/],
    ['it is lo', ['--tap', 'lo'], /interface lo: EINVAL: .*: choose another name/],
    ['there is no such bridge', ['--bridge', 'br1'], /interface br1: ENODEV: no interface of this name/],
    ['the bridge is none', ['--bridge', 'lo'], /interface .*/],
    [
      'the sections are too small',
      ['--mtu', '20000'],
      /MTU 20000: output sections of 65536 bytes allow 14688/,
      2,
    ],
    [
      'there is no such namespace',
      ['--netns', 'nothing-here'],
      /open \/run\/netns\/nothing-here: ENOENT: .*ip netns add/,
    ],
    [
      'there is no such process',
      ['--netns', '/proc/4194305/ns/net'],
      /open \/proc\/4194305\/ns\/net: ENOENT/,
    ],
    [
      'the namespace is something else',
      ['--netns', '/dev/null'],
      /\/dev\/null: ENOTTY: is no network namespace/,
    ],
  ];
  it.each(cases)('%s', async (_name, argv, pattern, code = 1) => {
    await expectLine(['net', '--socket', socket, '--netns', netns.path, ...argv], code, pattern);
    expect(netns.run(listInterfaces).map(({ name }) => name)).toEqual(before);
  });

  it('its name is in use', async () => {
    using _tap = netns.run(() => openTap('busy'));
    const argv = ['net', '--socket', socket, '--netns', netns.path, '--tap', 'busy'];
    await expectLine(argv, 1, /interface busy: EBUSY: a TAP of this name is in use: stop its user/);
  });

  it('--verbose prints the stack', async () => {
    const { code, stderr } = await run(['--verbose', 'net', '--socket', socket, '--netns', 'nothing-here']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^ivshmem: open [^\n]*\nSystemCallError: open [^\n]*\n( {4}at [^\n]*\n)+$/);
  });
});

const notRoot = process.getuid?.() === 0 ? null : 'only root can run a program as another user';

describeWhere(notRoot, 'a user without privileges: one line, exit code 1', () => {
  const asNobody = { uid: NOBODY, gid: NOBODY };

  it('may not connect', async () => {
    const socket = join(directory, 'private');
    const server = new Program(['server', '-F', '--json', '-S', socket, '-P1', '-o64K']);
    await server.line(({ type }) => type === 'listening');
    chmodSync(directory, 0o755);
    await expectLine(['net', '--socket', socket], 1, /private: EACCES: needs permission/, asNobody);
    chmodSync(socket, 0o666);
    const noTap = /(open \/dev\/net\/tun|interface ivn0): (EACCES|EPERM|ENOENT): (needs|this container|load)/;
    await expectLine(['net', '--socket', socket], 1, noTap, asNobody);
    await server.stop();
  });
});
