import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createHostServer } from '@ivshmem/host-server';
import { openEthernet } from '@ivshmem/net';
import { type Capture, startCapture } from '@ivshmem/net/capture';
import { ping, tcpTransfer } from '@ivshmem/traffic';
import { filter, firstValueFrom } from 'rxjs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type PcapngFile, parsePcapng } from '../packages/net/src/capture/pcapng.test-support.ts';
import { until } from './support/processes.ts';
import { COMMAND, Program, run } from './support/program.ts';
import { describeNetwork } from './support/requirements.ts';
import { Rig } from './support/rig.ts';
import { asNobody } from './support/unprivileged.ts';

const noTshark = spawnSync('tshark', ['--version']).error === undefined ? null : 'tshark is not installed';
/** Long enough for a capture that sleeps, and for its program to write what it has. */
const isWhole = (file: string) => parsePcapng(readFileSync(file));

let directory: string;
/** A place for control sockets of its own. */
let runtime: string | undefined;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'ivshmem-capture-test-'));
  mkdirSync(join(directory, 'run'));
  runtime = process.env.IVSHMEM_RUNTIME_DIR;
  process.env.IVSHMEM_RUNTIME_DIR = join(directory, 'run');
});

afterAll(() => {
  if (runtime === undefined) delete process.env.IVSHMEM_RUNTIME_DIR;
  else process.env.IVSHMEM_RUNTIME_DIR = runtime;
  rmSync(directory, { recursive: true });
});

const tshark = (...argv: string[]) =>
  execFileSync('tshark', argv, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();

describeNetwork('ivshmem capture', () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await Rig.up();
  });
  afterAll(() => rig?.close());

  const ends = () => ({ from: rig.namespaces[0].path, to: rig.namespaces[1].path, address: '10.64.0.2' });
  const pings = (count: number) =>
    ping({ netns: ends().from, to: ends().address, count, intervalMs: 2, timeoutMs: 10_000 });

  /** Starts a capture into a file; resolves when the file has its header: from then on, every frame counts. */
  async function start(name: string, ...argv: string[]): Promise<{ file: string; program: Program }> {
    const file = join(directory, name);
    const program = new Program(['capture', ...argv, '-w', file]);
    await until(() => {
      try {
        return readFileSync(file).length > 0;
      } catch {
        return program.child.exitCode !== null;
      }
    });
    return { file, program };
  }

  async function stop(program: Program, file: string): Promise<PcapngFile> {
    expect(await program.stop()).toMatchObject({ code: 0, stdout: '' });
    return isWhole(file);
  }

  it('writes what crosses the rings in both directions', async () => {
    const { file, program } = await start('ping.pcapng', rig.socket);
    await pings(50);
    const { interfaces, packets, statistics, application } = await stop(program, file);
    expect(application).toMatch(/^ivshmem capture \d/);
    expect(interfaces.map(({ name }) => name)).toEqual(['peer 0 to 1', 'peer 1 to 0']);
    // ICMP echo request and reply, of IPv4.
    const ofType = (type: number) =>
      packets.filter(
        ({ bytes }) => bytes.readUInt16BE(12) === 0x0800 && bytes[23] === 1 && bytes[34] === type,
      );
    expect([ofType(8).length, ofType(0).length]).toEqual([50, 50]);
    const { interfaceId } = ofType(8)[0]!;
    expect(new Set(ofType(8).map((packet) => packet.interfaceId))).toEqual(new Set([interfaceId]));
    expect(new Set(ofType(0).map((packet) => packet.interfaceId))).toEqual(new Set([1 - interfaceId]));
    for (const [i, { time }] of packets.entries()) expect(i === 0 || time >= packets[i - 1]!.time).toBe(true);
    for (const { interfaceId: id, received, dropped } of statistics) {
      expect(received - dropped).toBe(packets.filter((packet) => packet.interfaceId === id).length);
    }
    expect((await program.exited).stderr).toMatch(
      /: peer 0 to 1: \d+ frames of \d+ bytes captured, \d+ missed; peer 1 to 0: [^\n]*\n$/,
    );
  });

  it.runIf(noTshark === null)('is read by tshark, offloads and gaps included', async () => {
    const { file, program } = await start('tcp.pcapng', 'ivn0', '-s', '200');
    await pings(5);
    await tcpTransfer({ ...ends(), bytes: 4_000_000 });
    const { packets } = await stop(program, file);
    const offloaded = packets.filter(({ comments }) => comments.some((text) => text.startsWith('offloaded')));
    for (const { flags, length } of offloaded) {
      expect(flags & 0xe00).toBe(0xa00);
      expect(length).toBeGreaterThan(1500);
    }
    const lines = tshark(
      '-r',
      file,
      '-T',
      'fields',
      '-e',
      'frame.interface_id',
      '-e',
      'frame.len',
      '-e',
      'frame.cap_len',
    );
    expect(lines.split('\n').map((line) => line.split('\t').map(Number))).toEqual(
      packets.map(({ interfaceId, length, bytes }) => [interfaceId, length, bytes.length]),
    );
    expect(Math.max(...packets.map(({ bytes }) => bytes.length))).toBeLessThanOrEqual(200);
    const replies = tshark('-r', file, '-Y', 'icmp.type == 0', '-T', 'fields', '-e', 'icmp.seq');
    expect(replies.split('\n')).toHaveLength(5);
    const flagged = tshark(
      '-r',
      file,
      '-Y',
      'frame.comment contains "offloaded"',
      '-T',
      'fields',
      '-e',
      'frame.number',
    );
    expect(flagged === '' ? [] : flagged.split('\n')).toHaveLength(offloaded.length);
  });

  it('into a pipe whose reader ends, ends, too', async () => {
    const file = join(directory, 'pipe.pcapng');
    const shell = `"$0" "$@" | head -c 400 > ${file}; echo "\${PIPESTATUS[0]}"`;
    const child = spawn('bash', ['-c', shell, process.execPath, COMMAND, 'capture', rig.socket]);
    const traffic = setInterval(() => void pings(2).catch(() => {}), 100);
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
    });
    await once(child, 'close');
    clearInterval(traffic);
    expect(text).toBe('0\n');
    expect(readFileSync(file).readUInt32LE(0)).toBe(0x0a0d0d0a);
  });

  it('ends on SIGTERM although its output is not read, and the link goes on', async () => {
    const program = new Program(['capture', rig.socket], { stdio: ['ignore', 'pipe', 'pipe'] }, [
      process.execPath,
      COMMAND,
    ]);
    program.child.stdout!.pause();
    await tcpTransfer({ ...ends(), bytes: 20_000_000 });
    expect((await pings(10)).received).toBe(10);
    program.child.kill('SIGTERM');
    program.child.stdout!.resume();
    expect((await program.exited).code).toBe(0);
  });

  it('names what is wrong in one line', async () => {
    const failing = async (argv: string[], code: number, pattern: RegExp) => {
      const result = await run(['capture', ...argv]);
      expect([result.code, result.stdout]).toEqual([code, '']);
      expect(result.stderr).toMatch(/^ivshmem: [^\n]+\n$/);
      expect(result.stderr).toMatch(pattern);
    };
    await failing([], 2, /which link\?/);
    await failing(
      ['nolink', '-w', join(directory, 'x')],
      1,
      /nolink: no such link: there are .*"ivshmem status"/,
    );
    await failing([rig.socket, '-w', '/nonexistent/file'], 1, /ENOENT.*\/nonexistent\/file/);
    await failing([rig.socket, '-s', 'much'], 2, /'much' is invalid/);
  });

  it('is not for other users', async () => {
    chmodSync(directory, 0o755);
    const command = asNobody(false, process.execPath, COMMAND);
    const { code, stderr } = await new Program(['capture', rig.socket, '-w', '-'], {}, command).exited;
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^ivshmem: \S+: no such link: [^\n]*\n$/)]);
  });

  it('answers as Wireshark asks', async () => {
    const ask = async (...argv: string[]) => {
      const { code, stdout, stderr } = await run(['capture', ...argv]);
      expect([code, stderr]).toEqual([0, '']);
      return stdout;
    };
    expect(await ask('--extcap-interfaces', '--extcap-version=4.0')).toMatch(
      /^extcap \{version=\d[^}]*\}\{display=[^}]+\}\ninterface \{value=\S+\}\{display=ivshmem \S+ \(ivn0, ivn0\)\}\n$/,
    );
    expect(await ask('--extcap-dlts', '--extcap-interface', rig.socket)).toBe(
      'dlt {number=1}{name=EN10MB}{display=Ethernet}\n',
    );
    expect(await ask('--extcap-config', '--extcap-interface', rig.socket)).toBe('');
    const fifo = join(directory, 'fifo');
    execFileSync('mkfifo', [fifo]);
    const argv = ['capture', '--capture', '--extcap-interface', rig.socket, '--fifo', fifo];
    const program = new Program([...argv, '--extcap-capture-filter', '']);
    const reader = spawn('cat', [fifo]);
    const chunks: Buffer[] = [];
    reader.stdout.on('data', (chunk) => chunks.push(chunk));
    await once(reader.stdout, 'data');
    await pings(3);
    const closed = once(reader, 'close');
    expect(await program.stop()).toMatchObject({ code: 0, stdout: '' });
    await closed;
    expect(parsePcapng(Buffer.concat(chunks)).packets.length).toBeGreaterThanOrEqual(6);
  });
});

describe('a capture beside two programs that send as fast as they can', () => {
  it('reports no frame that is not whole, and counts all others', async () => {
    const socketPath = join(directory, 'flood');
    const server = createHostServer({
      socketPath,
      size: 1 << 20,
      outputSectionSize: 1 << 16,
      maxPeers: 2,
      vectors: 2,
      protocol: 1,
    });
    // The receiver is a process of its own, so that the rings change while the capture reads.
    const receiver = `
      import { openEthernet } from '@ivshmem/net';
      const link = await openEthernet({ port: { type: 'server', socketPath: ${JSON.stringify(socketPath)} }, onFrames() {} });
      process.stdin.resume().once('end', () => link.close());`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', receiver], {
      cwd: fileURLToPath(new URL('..', import.meta.url)),
      stdio: ['pipe', 'inherit', 'inherit'],
    });
    const sender = await openEthernet({ port: { type: 'server', socketPath } });
    let capture: Capture | undefined;
    try {
      await firstValueFrom(sender.state$.pipe(filter(({ carrier }) => carrier)));
      const { memory, doorbells } = server.observe();
      capture = await startCapture({ memory, maxPeers: 2, outputSectionSize: 1 << 16, link: 'flood' });
      capture.setDoorbells(doorbells);
      const file = (async () => {
        const chunks: Uint8Array[] = [];
        for await (const chunk of capture.bytes()) chunks.push(chunk);
        return parsePcapng(Buffer.concat(chunks));
      })();
      const deadline = performance.now() + 3000;
      let sent = 0;
      while (performance.now() < deadline) {
        const burst = Array.from({ length: 16 }, (_, i) =>
          new Uint8Array(100 + ((sent + i) % 1300)).fill(sent + i),
        );
        await sender.send(burst);
        sent += burst.length;
      }
      await until(() => sender.stats().txFrames === sent);
      await capture.close();
      const { packets } = await file;
      const torn = packets.filter(
        ({ bytes, comments }) =>
          !comments.some((text) => text.startsWith('may have')) && bytes.some((byte) => byte !== bytes[0]),
      );
      expect(torn.length).toBe(0);
      const { frames, missed } = capture.counters()[packets[0]?.interfaceId === 1 ? 1 : 0];
      expect(frames).toBe(packets.length);
      expect(frames).toBeGreaterThan(0);
      // The indices of a ring have 16 bits: 65536 frames between two looks are as none (docs/capture.md).
      const uncounted = sent - frames - missed;
      expect([uncounted >= 0, uncounted % 0x10000]).toEqual([true, 0]);
      expect(packets.reduce((sum, { dropped }) => sum + dropped, 0)).toBeLessThanOrEqual(missed);
    } finally {
      child.stdin.end();
      await capture?.close();
      await sender.close();
      await once(child, 'exit');
      server.close();
    }
  });
});

describe.skipIf(noTshark !== null)(`tshark${noTshark === null ? '' : ` (skipped: ${noTshark})`}`, () => {
  it('is there, so that no test above was left out', () => expect(noTshark).toBeNull());
});
