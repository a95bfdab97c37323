import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createHostServer } from '@ivshmem/host-server';
import { getInterface, Netns } from '@ivshmem/linux/network';
import { createLink } from '@ivshmem/net';
import { filter, firstValueFrom } from 'rxjs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { holdings, isNamespaceAlive, namespacesOf, processesWith, until } from './support/processes.ts';
import { Program } from './support/program.ts';
import { describeNetwork } from './support/requirements.ts';
import { Rig, TAP } from './support/rig.ts';

let directory: string;
let marker: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ivshmem-cleanup-'));
  marker = `IVSHMEM_TEST_RUN=${directory}`;
});

afterEach(() => {
  rmSync(directory, { recursive: true });
});

/** For what a test starts: its temporary files are here, and the processes that it starts can be recognised. */
function environment() {
  return { ...process.env, TMPDIR: directory, IVSHMEM_TEST_RUN: directory };
}

function expectNoProcesses() {
  return until(() => processesWith(marker).length === 0);
}

describe('ivshmem server', () => {
  it.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('leaves nothing after %s', async (signal) => {
    const socket = join(directory, 'socket');
    const name = `ivshmem-cleanup-${process.pid}`;
    const argv = ['server', '-F', '--json', '-S', socket, '-M', name, '-o64K', '-l1M', '-V2', '-P1'];
    const server = new Program(argv, { env: environment() });
    await server.line(({ type }) => type === 'listening');
    expect(readdirSync('/dev/shm')).toContain(name);
    expect(readFileSync('/proc/net/unix', 'utf8')).toContain(socket);
    expect(await server.stop(signal)).toMatchObject({ code: 0, stderr: '' });
    expect(readdirSync(directory)).toEqual([]);
    expect(readdirSync('/dev/shm')).not.toContain(name);
    expect(readFileSync('/proc/net/unix', 'utf8')).not.toContain(socket);
    await expectNoProcesses();
  });
});

describeNetwork('ivshmem net', () => {
  const ways: [string, (peer: Program) => unknown][] = [
    ['SIGINT', (peer) => peer.child.kill('SIGINT')],
    ['SIGTERM', (peer) => peer.child.kill('SIGTERM')],
    ['the end of standard input', (peer) => peer.child.stdin!.end()],
    ['SIGTERM while its output is not read', (peer) => peer.child.stdout!.destroy() && peer.child.kill()],
  ];
  it.each(ways)('leaves nothing after %s, and its peer notices', async (_name, end) => {
    await using rig = await Rig.up();
    const [first, second] = rig.peers;
    const from = first!.lines.length;
    end(second!);
    expect(await second!.exited).toMatchObject({ code: 0, stderr: '' });
    expect(rig.inside(1, () => getInterface(TAP))).toBeNull();
    await first!.line(({ event, peer }) => event === 'state' && peer === 'RESET', from);
    await rig.server.line(({ type }) => type === 'peer-gone');
  });

  it.each(['SIGINT', 'SIGTERM'] as const)('ends on %s while it waits for the server', async (signal) => {
    const { createServer } = await import('node:net');
    const path = join(directory, 'silent');
    const server = createServer();
    const connected = new Promise((resolve) => server.once('connection', resolve));
    server.listen(path);
    const program = new Program(['net', '--socket', path, '--json']);
    await connected;
    // Otherwise it would continue to wait, and then report that no server answers.
    expect(await program.stop(signal)).toMatchObject({ code: 0, stdout: '', stderr: '' });
    server.close();
  });
});

describeNetwork('ivshmem demo', () => {
  const inTheMiddle = [
    ['SIGINT', 'Link'],
    ['SIGTERM', 'Ping'],
    ['SIGINT', 'TCP'],
    ['SIGTERM', 'TCP'],
  ] as const;

  it.each(inTheMiddle)('leaves nothing after %s during "%s"', async (signal, part) => {
    const demo = new Program(['demo'], { env: environment() });
    await demo.line((line) => String(line).startsWith(part));
    const namespaces = [...namespacesOf(demo.pid)].filter((id) => !namespacesOf('self').has(id));
    const exit = await demo.stop(signal);
    expect(exit).toMatchObject({ code: 1, stderr: '' });
    expect(exit.stdout).toContain('Stopped. Nothing is left behind.');
    expect(readdirSync(directory)).toEqual([]);
    await expectNoProcesses();
    expect(namespaces).toHaveLength(2);
    for (const id of namespaces) expect(isNamespaceAlive(id)).toBe(false);
  });

  it('leaves no process, interface or namespace when it is killed', async () => {
    const demo = new Program(['demo'], { env: environment() });
    await demo.line((line) => String(line).startsWith('Ping'));
    const namespaces = [...namespacesOf(demo.pid)].filter((id) => !namespacesOf('self').has(id));
    expect(processesWith(marker)).toHaveLength(3);
    await demo.stop('SIGKILL');
    await expectNoProcesses();
    expect(namespaces).toHaveLength(2);
    for (const id of namespaces) expect(isNamespaceAlive(id)).toBe(false);
    // No process is left to remove the socket, but none answers there, and the next server takes it over.
    const [left] = readdirSync(directory);
    expect(readdirSync(join(directory, left!))).toEqual(['server.sock']);
  });
});

describeNetwork('a program that makes links', () => {
  const CYCLES = 25;
  /** koffi keeps stack, guard page and heap of each thread that has called C, unused, when the thread has ended. */
  const KOFFI_MAPPINGS = 3;
  /** V8's own heap comes and goes. */
  const V8_MAPPINGS = 50;

  it(`gives everything back, ${2 * CYCLES} times`, async () => {
    const socketPath = join(directory, 'socket');
    const namespaces = [Netns.create(), Netns.create()] as const;
    const cycle = async () => {
      const settings = { socketPath, size: 1 << 20, outputSectionSize: 1 << 16, vectors: 2, protocol: 1 };
      const server = createHostServer(settings);
      const links = await Promise.all(
        namespaces.map((netns) =>
          createLink({ port: { type: 'server', socketPath }, tap: TAP, netns: netns.path }),
        ),
      );
      await Promise.all(links.map(({ state$ }) => firstValueFrom(state$.pipe(filter((s) => s.carrier)))));
      await Promise.all(links.map((link) => link.close()));
      server.close();
      await expect(Promise.all(links.map(({ closed }) => closed))).resolves.toEqual([null, null]);
    };
    // What is made once and stays: thread pools, pollers, modules.
    for (let i = 0; i < 3; i++) await cycle();
    const mappings = () => readFileSync('/proc/self/maps', 'utf8').split('\n').length;
    const before = holdings('self');
    const mappingsBefore = mappings();
    for (let i = 0; i < CYCLES; i++) await cycle();
    expect({ ...holdings('self'), resident: 0 }).toEqual({ ...before, resident: 0 });
    expect(mappings()).toBeLessThan(mappingsBefore + 2 * CYCLES * KOFFI_MAPPINGS + V8_MAPPINGS);
    for (const netns of namespaces) {
      expect(netns.run(() => getInterface(TAP))).toBeNull();
      netns.close();
    }
    expect(readdirSync(directory)).toEqual([]);
  });

  it('releases everything if a link cannot be created', async () => {
    using netns = Netns.create();
    const nobody = { type: 'server', socketPath: join(directory, 'nobody') } as const;
    const attempt = async (options: object) => {
      await expect(createLink({ port: nobody, tap: TAP, netns: netns.path, ...options })).rejects.toThrow(
        /^[^\n]+$/,
      );
    };
    const all = async () => {
      await attempt({});
      await attempt({ netns: 'there-is-no-such-namespace' });
      await attempt({ netns: '/dev/null' });
      await attempt({ mtu: 3 });
      const server = createHostServer({
        socketPath: nobody.socketPath,
        size: 1 << 20,
        outputSectionSize: 1 << 16,
        protocol: 1,
      });
      await attempt({ mtu: 60_000 });
      await attempt({ bridge: 'nobridge' });
      await attempt({ addresses: ['10.0.0.1/24', '::1/128'] });
      server.close();
    };
    await all();
    const before = holdings('self');
    for (let i = 0; i < 5; i++) await all();
    expect({ ...holdings('self'), resident: 0 }).toEqual({ ...before, resident: 0 });
    expect(netns.run(() => getInterface(TAP))).toBeNull();
  });

  /** A program of its own, for what it does may end it. */
  const program = (handled: boolean) => `
    import { getInterface, Netns } from '@ivshmem/linux/network';
    import { createLink } from '@ivshmem/net';
    import { Loopback } from '@ivshmem/transport';
    import { filter, firstValueFrom } from 'rxjs';
    let thrown = 0;
    if (${handled}) process.on('uncaughtException', () => thrown++);
    const netns = Netns.create();
    const loopback = new Loopback({ outputSectionSize: 65536 });
    const make = (index) => createLink({
      port: { type: 'loopback', end: loopback.ends[index] }, tap: 'ivn' + index, netns: netns.path,
    });
    const links = await Promise.all([make(0), make(1)]);
    for (const { state$, stats$, log$ } of links) {
      for (const stream of [state$, stats$, log$]) stream.subscribe(() => { throw new Error('in user code'); });
    }
    await Promise.all(links.map(({ state$ }) => firstValueFrom(state$.pipe(filter((s) => s.carrier)))));
    await Promise.all(links.map((link) => link.close()));
    console.log(JSON.stringify({ thrown: thrown > 0, left: netns.run(() => getInterface('ivn0')) }));
    netns.close();
    loopback.close();
  `;
  const start = (handled: boolean) =>
    new Program([], { env: environment(), cwd: fileURLToPath(new URL('..', import.meta.url)) }, [
      process.execPath,
      '--input-type=module',
      '-e',
      program(handled),
    ]);

  it('continues if a subscriber throws and the program handles that', async () => {
    const { code, stdout, stderr } = await start(true).exited;
    expect([stderr, stdout, code]).toEqual(['', '{"thrown":true,"left":null}\n', 0]);
  });

  it('ends if a subscriber throws and the program does not handle that, and leaves nothing', async () => {
    const { code, stderr } = await start(false).exited;
    expect(stderr).toContain('Error: in user code');
    expect(code).not.toBe(0);
    expect(readdirSync(directory)).toEqual([]);
    await expectNoProcesses();
  });
});
