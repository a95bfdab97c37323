import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createHostServer } from '@ivshmem/host-server';
import { missingNetworkPrivilege, Netns } from '@ivshmem/linux/network';
import { createLink } from '@ivshmem/net';
import { ping } from '@ivshmem/traffic';
import { expect, it } from 'vitest';

const EXAMPLES = fileURLToPath(new URL('../examples/', import.meta.url));
const missing = missingNetworkPrivilege();
const skip = missing !== null && process.env.CI === undefined;

it('are all in the README', () => {
  const readme = readFileSync(join(EXAMPLES, 'README.md'), 'utf8');
  const links = [...readme.matchAll(/\]\(([^)#]+)/g)].map(([, path]) => path!);
  expect(links.filter((path) => !existsSync(join(EXAMPLES, path)))).toEqual([]);
  expect(readdirSync(EXAMPLES).filter((file) => file.endsWith('.mjs') && !links.includes(file))).toEqual([]);
});

it('two-peers.mjs', async () => {
  const run = await promisify(execFile)(process.execPath, [join(EXAMPLES, 'two-peers.mjs')], {
    timeout: 60_000,
  });
  expect(run).toEqual({
    stdout: 'peer 1: hello from peer 0\npeer 0: hello from peer 1\n',
    stderr: '',
  });
});

it.skipIf(skip)(`answer-ping.mjs${skip ? ` (skipped: ${missing})` : ''}`, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'ivshmem-examples-'));
  const socketPath = join(directory, 'socket');
  const memory = { size: 4 << 20, outputSectionSize: 1 << 20 };
  const server = createHostServer({ socketPath, ...memory, maxPeers: 2, vectors: 2, protocol: 1 });
  const netns = Netns.create();
  let program: ChildProcess | undefined;
  try {
    const port = { type: 'server', socketPath } as const;
    await using _link = await createLink({
      port,
      tap: 'ivn0',
      netns: netns.path,
      addresses: ['10.9.0.1/24'],
    });
    const stdio = ['ignore', 'pipe', 'inherit'] as const;
    program = spawn(process.execPath, [join(EXAMPLES, 'answer-ping.mjs'), socketPath], { stdio: [...stdio] });
    for await (const line of createInterface(program.stdout!)) if (line === 'the peer is there') break;
    const { received } = await ping({ netns: netns.path, to: '10.9.0.2', count: 5, timeoutMs: 10_000 });
    expect(received).toBe(5);
    const ended = once(program, 'exit');
    program.kill('SIGTERM');
    expect(await ended).toEqual([0, null]);
  } finally {
    program?.kill('SIGKILL');
    server.close();
    netns.close();
    rmSync(directory, { recursive: true });
  }
});
