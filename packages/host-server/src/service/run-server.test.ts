import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { UnixSocket } from '@ivshmem/linux/socket';
import { describe, expect, it } from 'vitest';
import { type RunServerOptions, runServer } from './run-server.ts';

/** Runs the command with its output collected; `onLine` gets what it writes to stdout. */
async function run(
  argv: string[],
  onLine: (line: string) => void = () => {},
  more: Partial<RunServerOptions> = {},
) {
  let stdout = '';
  let stderr = '';
  const status = await runServer(argv, {
    stdout: {
      write(text: string) {
        stdout += text;
        onLine(text);
      },
    },
    stderr: {
      write(text: string) {
        stderr += text;
      },
    },
    ...more,
  });
  return { status, stdout, stderr };
}

describe('the host server as a command', () => {
  it('shows its help', async () => {
    const { status, stdout, stderr } = await run(['-h']);
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^Usage: ivshmem2-server \[OPTION\]/);
  });

  it.each([
    [['-Q'], '-Q: unknown option'],
    [['-v'], '-v: a daemon has no log: add -F'],
    [['-F', '-V65'], 'vectors 65: must be 1 to 64'],
    [['-V0'], 'vectors 0: must be 1 to 64'],
    [['-F', '-n3', '-P0x8000'], '3 peers: virtio protocols (0x8000 to 0xffff) have two'],
    [['-n2000'], '2000 peers: the state table holds 2 to 1024 of them'],
  ])('refuses %j with status 2, one line, and where to look', async (argv, line) => {
    const { status, stdout, stderr } = await run(argv);
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr).toBe(`ivshmem2-server: ${line}\nTry 'ivshmem2-server -h' for more information.\n`);
  });

  it('fails with status 1 and one line if a system call fails', async () => {
    const { status, stderr } = await run(['-F', '-S/nonexistent/socket']);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^ivshmem2-server: bind \/nonexistent\/socket: ENOENT: [^\n]*\n$/);
  });

  it('serves in the foreground until it is stopped, and removes its signal handlers', async () => {
    const directory = mkdtempSync('/tmp/run-server-');
    const socket = join(directory, 'socket');
    const handlers = () => ['SIGINT', 'SIGTERM', 'SIGHUP'].map((name) => process.listenerCount(name));
    const before = handlers();
    const abort = new AbortController();
    let client: UnixSocket | undefined;
    const onLine = (line: string) => {
      if (line.startsWith('listening')) client = UnixSocket.connect(socket);
      if (line.startsWith('peer 0 joined')) client!.close();
      if (line.startsWith('peer 0 gone')) abort.abort();
    };
    const { status, stdout } = await run(['-Fv', '-S', socket, '-l64K'], onLine, { signal: abort.signal });
    expect(status).toBe(0);
    expect(stdout.split('\n')).toEqual([
      `listening at ${socket}: 65536 bytes, sealed memfd`,
      `peer 0 joined: pid ${process.pid}, uid ${process.getuid!()}`,
      'peer 0 gone: disconnected',
      'closed',
      '',
    ]);
    expect(handlers()).toEqual(before);
    expect(readdirSync(directory)).toEqual([]);
    rmSync(directory, { recursive: true });
  });

  it('warns about settings that peers cannot use, with and without a log', async () => {
    const directory = mkdtempSync('/tmp/run-server-');
    const argv = (...more: string[]) => ['-F', '-S', join(directory, 'socket'), '-P', '1', ...more];
    const once = async (given: string[], dialect: 'original' | 'extended') => {
      const abort = new AbortController();
      const more = { signal: abort.signal, dialect, environment: {} };
      const { status, stdout, stderr } = await run(given, () => abort.abort(), more);
      expect(status).toBe(0);
      return [stdout, stderr].map((text) => text.split('add -V 2').length - 1);
    };
    // The defaults of the original, with and without a log; ours; ours, overridden.
    expect(await once(argv(), 'original')).toEqual([0, 1]);
    expect(await once(argv('-v'), 'original')).toEqual([1, 0]);
    expect(await once(argv(), 'extended')).toEqual([0, 0]);
    // As a field of its own, and in the message.
    expect(await once(argv('-V', '1'), 'extended')).toEqual([2, 0]);
    rmSync(directory, { recursive: true });
  });

  it('logs events as JSON lines, or as text on a terminal', async () => {
    const directory = mkdtempSync('/tmp/run-server-');
    const socketPath = join(directory, 'socket');
    const argv = ['-F', '-S', socketPath];
    const once = async (more: object) => {
      const abort = new AbortController();
      const { stdout } = await run(argv, () => abort.abort(), {
        signal: abort.signal,
        dialect: 'extended',
        ...more,
      });
      return stdout.trimEnd().split('\n');
    };
    const time = expect.any(Number);
    const common = { time, level: 'info', link: socketPath };
    expect((await once({})).map((line) => JSON.parse(line))).toEqual([
      {
        ...common,
        type: 'listening',
        socketPath,
        memory: 'sealed memfd',
        size: 4 << 20,
        msg: `listening at ${socketPath}: 4194304 bytes, sealed memfd`,
      },
      { ...common, type: 'closed', msg: 'closed' },
    ]);
    expect(await once({ terminal: true })).toEqual([
      expect.stringMatching(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d info {2}\/tmp\/[^ ]+: listening at /),
      expect.stringMatching(/ info {2}\/tmp\/[^ ]+: closed$/),
    ]);
    argv.push('--json');
    expect(JSON.parse((await once({ terminal: true }))[0]!)).toMatchObject({ type: 'listening' });
    rmSync(directory, { recursive: true });
  });

  it('rejects logging options for a daemon', async () => {
    const extended = { dialect: 'extended' as const, environment: {} };
    for (const option of ['-v', '--json']) {
      expect(await run([option], undefined, extended)).toMatchObject({
        status: 2,
        stderr: expect.stringContaining(`${option}: a daemon has no log: add -F`),
      });
    }
  });
});
