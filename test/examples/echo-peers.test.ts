import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createHostServer } from '@ivshmem/host-server';
import { mainPoller } from '@ivshmem/linux/wait';
import { type Ethernet, openEthernet } from '@ivshmem/net';
import { openPort, Peer, type Port } from '@ivshmem/transport';
import { filter, firstValueFrom } from 'rxjs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { missingPrograms } from '../../bench/src/programs.ts';
import { until } from '../support/processes.ts';
import { Program } from '../support/program.ts';
import { describeWhere } from '../support/requirements.ts';

const EXAMPLES = fileURLToPath(new URL('../../examples/', import.meta.url));
const VECTORS = fileURLToPath(new URL('vectors.py', import.meta.url));

let directory: string;
const inDirectory = (name: string) => join(directory, name);

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'ivshmem-echo-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

function missingPython(): string | null {
  const missing = missingPrograms(['python3'], 'python3');
  if (missing !== null) return missing;
  const { status } = spawnSync('python3', ['-c', 'import os; os.eventfd']);
  return status === 0 ? null : 'python3 is older than 3.10';
}

function serve(outputSectionSize = 1 << 16, vectors = 2) {
  const size = 4096 + 2 * outputSectionSize;
  const socketPath = inDirectory('socket');
  return createHostServer({ socketPath, size, outputSectionSize, maxPeers: 2, vectors, protocol: 1 });
}
const port = () => ({ type: 'server', socketPath: inDirectory('socket') }) as const;

/** A frame whose length and content follow from its number. */
function frame(number: number, mtu: number): Buffer {
  const made = Buffer.alloc(14 + ((number * 7919) % (mtu + 1)), number & 0xff);
  made.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
  if (made.length >= 18) made.writeUInt32LE(number, 14);
  return made;
}

/** Sends frames, and throws unless each comes back with its addresses exchanged, once and in order. */
async function expectEcho(link: Ethernet, count: number): Promise<void> {
  await firstValueFrom(link.state$.pipe(filter(({ carrier }) => carrier)));
  const { mtu } = link.info; // agreed with the peer by now
  const send = async () => {
    for (let i = 0; i < count; i++) await link.send(frame(i, mtu));
  };
  const sent = send();
  const back = link.receive();
  for (let i = 0; i < count; i++) {
    const { value } = await back.next();
    const expected = frame(i, mtu);
    expected.set([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    if (!expected.equals(value)) throw new Error(`frame ${i}: ${Buffer.from(value).toString('hex')}`);
  }
  await sent;
}

interface Subject {
  readonly name: string;
  readonly missing: string | null;
  /** The command, without the path of the socket. */
  readonly command: () => readonly string[];
}

const subjects: readonly Subject[] = [
  {
    name: 'echo-peer.ts',
    missing: null,
    command: () => [process.execPath, join(EXAMPLES, 'dist/echo-peer.js')],
  },
  {
    name: 'python/echo_peer.py',
    missing: missingPython(),
    command: () => ['python3', '-B', join(EXAMPLES, 'python/echo_peer.py')],
  },
  {
    name: 'c/echo-peer.c',
    missing: missingPrograms(['cc'], 'gcc libc6-dev'),
    command() {
      const program = inDirectory('echo-peer');
      const warnings = ['-Wall', '-Wextra', '-Werror'];
      execFileSync('cc', ['-std=c11', '-O2', ...warnings, '-o', program, join(EXAMPLES, 'c/echo-peer.c')]);
      return [program];
    },
  },
];

for (const { name, missing, command } of subjects) {
  describeWhere(missing, name, () => {
    let argv: readonly string[];
    beforeAll(() => {
      argv = command();
    });
    const start = (socketPath = inDirectory('socket')) => new Program([socketPath], {}, [...argv]);
    const isLine = (text: string) => (line: string) => line === text;

    it.each([
      { outputSectionSize: 4096, vectors: 1, frames: 70_000 },
      { outputSectionSize: 1 << 16, vectors: 2, frames: 2_000 },
      { outputSectionSize: 1 << 20, vectors: 2, frames: 20_000 },
    ])('returns every frame: %o', async ({ outputSectionSize, vectors, frames }) => {
      await using _server = serve(outputSectionSize, vectors);
      const peer = start();
      await using link = await openEthernet({ port: port() });
      await expectEcho(link, frames);
      expect(link.stats()).toMatchObject({ violations: 0, resets: 0 });
      expect(await peer.stop()).toMatchObject({ code: 0, stderr: '' });
    });

    it('comes back after the other side has left, in order or without a word', async () => {
      await using _server = serve();
      const peer = start();
      for (let round = 0; round < 3; round++) {
        const mark = peer.lines.length;
        await using link = await openEthernet({ port: port() });
        await expectEcho(link, 200);
        await link.close();
        await peer.line(isLine('no peer'), mark);
      }
      const mark = peer.lines.length;
      const killed = new Program([inDirectory('socket')], {}, [...argv]);
      await peer.line(isLine('the peer is there'), mark);
      await killed.stop('SIGKILL');
      await peer.line(isLine('no peer'), mark);
      await using link = await openEthernet({ port: port() });
      await expectEcho(link, 200);
      expect(await peer.stop('SIGINT')).toMatchObject({ code: 0, stderr: '' });
    });

    it('leaves in order: the other side sees RESET and loses its carrier', async () => {
      await using server = serve();
      const peer = start();
      const states: string[] = [];
      await using link = await openEthernet({ port: port() });
      link.state$.subscribe(({ peer: state, carrier }) => states.push(`${state} ${carrier}`));
      await until(() => states.at(-1) === '3 true');
      await peer.line(isLine('the peer is there'));
      expect(await peer.stop()).toMatchObject({ code: 0 });
      await until(() => states.at(-1)!.endsWith('false') && server.peers.length === 1);
      expect(states).toContain('0 false');
    });

    it('survives a peer that violates the protocol, and says so in one line', async () => {
      await using _server = serve();
      const program = start();
      const opened = await new Promise<Port | Error>((resolve) => openPort(port(), mainPoller, resolve));
      if (opened instanceof Error) throw opened;
      using peer = new Peer(opened, mainPoller);
      let ups = 0;
      const broken = () => {
        const { own, layout } = peer;
        const words = new Uint16Array(own.buffer);
        words[layout.avail / 2 + 1] = layout.length + 1;
        peer.port.ring(peer.other, 1);
      };
      peer.begin({
        carrier(on) {
          if (on && ++ups <= 3) broken();
        },
      });
      await until(() => ups > 3);
      const { code, stdout, stderr } = await program.stop();
      expect(code).toBe(0);
      const reports = `${stdout}${stderr}`.split('\n').filter((line) => line.includes('violat'));
      expect(reports.length).toBeGreaterThanOrEqual(1);
      expect(reports.length).toBeLessThanOrEqual(3);
    });

    if (name !== 'echo-peer.ts') {
      it('ends in one line if the server ends, or is not there', async () => {
        const server = serve();
        const peer = start();
        await until(() => server.peers.length === 1);
        server.close();
        const { code, stderr } = await peer.exited;
        expect([code, stderr.trim().split('\n').length]).toEqual([1, 1]);
        const none = await start(inDirectory('none')).exited;
        expect([none.code, none.stderr.trim().split('\n').length]).toEqual([1, 1]);
      });
    }
  });
}

describeWhere(missingPython(), 'the Python files', () => {
  it('agree with the test vectors', () => {
    expect(execFileSync('python3', [VECTORS], { encoding: 'utf8' })).toBe('');
  });

  it('say how to start the peer', () => {
    const argv = ['-B', join(EXAMPLES, 'python/echo_peer.py')];
    const { status, stderr } = spawnSync('python3', argv, { encoding: 'utf8' });
    expect([status, stderr]).toEqual([1, 'usage: echo_peer.py SOCKET\n']);
  });
});
