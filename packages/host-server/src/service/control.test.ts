import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ServerConnection } from '@ivshmem/transport';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { queryPeers } from './peer-list.ts';
import { runServer } from './run-server.ts';

let directory: string;
let runtime: string;

beforeEach(() => {
  directory = mkdtempSync('/tmp/control-');
  runtime = join(directory, 'runtime');
  mkdirSync(runtime);
  vi.stubEnv('IVSHMEM_RUNTIME_DIR', runtime);
});

afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(directory, { recursive: true });
});

/** Runs servers while `use` runs; resolves with the log. */
async function serving(
  argv: readonly string[],
  use: () => Promise<void>,
): Promise<Record<string, unknown>[]> {
  const abort = new AbortController();
  const lines: Record<string, unknown>[] = [];
  const stdout = { write: (text: string) => lines.push(JSON.parse(text)) };
  const stderr = { write: (text: string) => expect(text).toBe('') };
  const options = { dialect: 'extended', signal: abort.signal, environment: {}, stdout, stderr } as const;
  const ended = runServer(['-F', ...argv], options);
  try {
    await vi.waitUntil(() => lines.some(({ type }) => type === 'listening'), { timeout: 20_000 });
    await use();
  } finally {
    abort.abort();
    await ended;
  }
  return lines;
}

it('lists the connected peers of a server', async () => {
  const socket = join(directory, 'socket');
  await serving(['-S', socket, '-n', '5', '-V', '3', '-P', '2'], async () => {
    await vi.waitFor(async () => expect((await queryPeers(socket)).peers).toEqual([]));
    const client = ServerConnection.connect(socket);
    await vi.waitFor(async () => expect((await queryPeers(socket)).peers).toHaveLength(1));
    expect(await queryPeers(socket)).toEqual({
      kind: 'server',
      link: null,
      socket,
      since: expect.any(String),
      size: 4 << 20,
      outputSectionSize: 0,
      maxPeers: 5,
      vectors: 3,
      protocol: 2,
      peers: [
        {
          id: 0,
          pid: process.pid,
          uid: process.getuid!(),
          gid: process.getgid!(),
          state: 0,
          waiting: 0,
          since: expect.any(String),
        },
      ],
    });
    client.close();
  });
  expect(readdirSync(runtime)).toEqual([]);
  await expect(queryPeers(socket)).rejects.toThrow(/^\S+: no server with a control socket listens there: /);
});

it('serves without a control socket, and says so, if there is no directory for it', async () => {
  rmSync(runtime, { recursive: true });
  writeFileSync(runtime, '');
  const lines = await serving(['-S', join(directory, 'socket')], async () => {});
  const warning = lines.find(({ type }) => type === 'no-control');
  expect(warning).toMatchObject({
    level: 'warn',
    msg: expect.stringMatching(/no control socket: this user cannot/),
  });
});
