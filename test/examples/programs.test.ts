import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createHostServer } from '@ivshmem/host-server';
import { missingNetworkPrivilege, Netns } from '@ivshmem/linux/network';
import { createLink, openEthernet } from '@ivshmem/net';
import { ping } from '@ivshmem/traffic';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { VmmClient } from '../../packages/device/src/vfio-user/vmm-client.test-support.ts';
import { parsePcapng } from '../../packages/net/src/capture/pcapng.test-support.ts';
import { Program } from '../support/program.ts';

const EXAMPLES = fileURLToPath(new URL('../../examples/', import.meta.url));
const missing = missingNetworkPrivilege();
const skip = missing !== null && process.env.CI === undefined;

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'ivshmem-examples-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

/** A host server for a link, at a path of that name. */
function serve(name: string) {
  const socketPath = join(directory, name);
  const memory = { size: 4 << 20, outputSectionSize: 1 << 20 };
  return createHostServer({ socketPath, ...memory, maxPeers: 2, vectors: 2, protocol: 1 });
}
const open = (name: string) => openEthernet({ port: { type: 'server', socketPath: join(directory, name) } });
const start = (file: string, ...argv: string[]) =>
  new Program(argv, {}, [process.execPath, join(EXAMPLES, file)]);

/** A frame between stations 1, 2, … (0: to all). */
function frame(to: number, from: number, text: string): Buffer {
  const header = Buffer.from([2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5]);
  if (to === 0) header.fill(0xff, 0, 6);
  return Buffer.concat([header, Buffer.from(text)]);
}
const textOf = (received: IteratorResult<Uint8Array>) => Buffer.from(received.value).toString('latin1', 14);

it('are all in the README', () => {
  const readme = readFileSync(join(EXAMPLES, 'README.md'), 'utf8');
  const links = [...readme.matchAll(/\]\(([^)#]+)/g)].map(([, path]) => path!);
  expect(links.filter((path) => !existsSync(join(EXAMPLES, path)))).toEqual([]);
  const programs = ['', 'python/', 'c/'].flatMap((folder) =>
    readdirSync(join(EXAMPLES, folder)).map((file) => folder + file),
  );
  const unlisted = programs.filter((file) => /\.(mjs|ts|py|[ch])$/.test(file) && !links.includes(file));
  expect(unlisted).toEqual([]);
});

it('two-peers.mjs', async () => {
  expect(await start('two-peers.mjs').exited).toMatchObject({
    code: 0,
    stdout: 'peer 1: hello from peer 0\npeer 0: hello from peer 1\n',
    stderr: '',
  });
});

it.skipIf(skip)(`answer-ping.mjs${skip ? ` (skipped: ${missing})` : ''}`, async () => {
  await using server = serve('ping');
  const { socketPath } = server.options;
  const netns = Netns.create();
  const program = start('answer-ping.mjs', socketPath);
  try {
    const port = { type: 'server', socketPath } as const;
    await using _link = await createLink({
      port,
      tap: 'ivn0',
      netns: netns.path,
      addresses: ['10.9.0.1/24'],
    });
    await program.line((line) => line === 'the peer is there');
    const { received } = await ping({ netns: netns.path, to: '10.9.0.2', count: 5, timeoutMs: 10_000 });
    expect(received).toBe(5);
    expect(await program.stop()).toMatchObject({ code: 0, signal: null });
  } finally {
    await program.stop('SIGKILL');
    netns.close();
  }
});

it('generate-traffic.mjs', async () => {
  await using server = serve('traffic');
  const { socketPath } = server.options;
  const echo = start('dist/echo-peer.js', socketPath);
  const { code, stdout, stderr } = await start('generate-traffic.mjs', socketPath, '5000', '100').exited;
  expect([code, stderr]).toEqual([0, '']);
  const [counts, rate] = stdout.split('\n');
  expect(counts).toBe('5000 frames of 100 bytes, 5000 came back, 0 out of order');
  expect(rate).toMatch(/^\d+ thousand frames\/s in each direction$/);
  expect(await echo.stop()).toMatchObject({ code: 0 });
});

it('switch.mjs', async () => {
  const names = ['one', 'two', 'three'];
  const servers = names.map(serve);
  const program = start('switch.mjs', ...servers.map(({ options }) => options.socketPath));
  const [one, two, three] = await Promise.all(names.map(open));
  try {
    for (const name of names) await program.line((line) => line === `${join(directory, name)}: up`);
    const [at1, at2, at3] = [one!.receive(), two!.receive(), three!.receive()];
    await one!.send(frame(0, 1, 'where is 2?'));
    expect([textOf(await at2.next()), textOf(await at3.next())]).toEqual(['where is 2?', 'where is 2?']);
    await two!.send([frame(1, 2, 'here'), frame(0, 2, 'to all')]);
    // What was sent to station 1 alone does not reach station 3.
    expect([textOf(await at1.next()), textOf(await at1.next())]).toEqual(['here', 'to all']);
    expect(textOf(await at3.next())).toBe('to all');
    // Station 2 moves to the third link.
    await three!.send(frame(1, 2, 'moved'));
    expect(textOf(await at1.next())).toBe('moved');
    await one!.send([frame(2, 1, 'still there?'), frame(0, 1, 'last')]);
    expect([textOf(await at3.next()), textOf(await at2.next())]).toEqual(['still there?', 'last']);
  } finally {
    for (const link of [one, two, three]) await link!.close();
    const { code, stderr, stdout } = await program.stop();
    for (const server of servers) server.close();
    expect([code, stderr, stdout.match(/: dropped 0$/gm)?.length]).toEqual([0, '', 3]);
  }
});

it('capture.mjs', async () => {
  const names = ['left', 'right'];
  const servers = names.map(serve);
  const path = join(directory, 'frames.pcapng');
  const before = BigInt(Date.now() - 1) * 1_000_000n;
  const program = start('capture.mjs', ...servers.map(({ options }) => options.socketPath), path);
  const [left, right] = await Promise.all(names.map(open));
  const sent = [frame(2, 1, 'a'), frame(1, 2, 'answer'), frame(2, 1, 'third frame')];
  try {
    await program.line((line) => line === 'link 0: up');
    await program.line((line) => line === 'link 1: up');
    for (const [i, each] of sent.entries()) {
      const [from, to] = i === 1 ? [right!, left!] : [left!, right!];
      await from.send(each);
      expect(each.equals((await to.receive().next()).value)).toBe(true);
    }
  } finally {
    await left!.close();
    await right!.close();
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' });
    for (const server of servers) server.close();
  }
  const { interfaces, packets } = parsePcapng(readFileSync(path));
  expect(interfaces.map(({ name, resolution }) => [name, resolution])).toEqual(
    servers.map(({ options }) => [options.socketPath, 9]),
  );
  expect(packets.map(({ interfaceId }) => interfaceId)).toEqual([0, 1, 0]);
  for (const [i, { time, bytes, length }] of packets.entries()) {
    expect(time > before && time < BigInt(Date.now() + 1) * 1_000_000n).toBe(true);
    expect(length).toBe(sent[i]!.length);
    expect(sent[i]!.equals(bytes)).toBe(true);
  }
});

it.skipIf(skip)(`embedded.ts${skip ? ` (skipped: ${missing})` : ''}`, async () => {
  const netns = Netns.create();
  const folder = mkdtempSync(join(directory, 'embedded-'));
  const program = start('dist/embedded.js', folder, netns.path);
  try {
    await program.line((line) => line.startsWith('qemu-system-x86_64 … -device '));
    expect(netns.run(() => readFileSync('/proc/thread-self/net/dev', 'utf8'))).toContain('ivn0:');
    using vmm = Object.assign(new VmmClient(join(folder, 'vm.sock')), {
      [Symbol.dispose](this: VmmClient) {
        this.close();
      },
    });
    vmm.start();
    await program.line((line) => line === 'device: attached');
    expect(await program.stop()).toMatchObject({ code: 0, stderr: '' });
    expect(readdirSync(folder)).toEqual([]);
    expect(netns.run(() => readFileSync('/proc/thread-self/net/dev', 'utf8'))).not.toContain('ivn0:');
  } finally {
    await program.stop('SIGKILL');
    netns.close();
  }
});
