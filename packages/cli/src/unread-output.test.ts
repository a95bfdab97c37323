import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, existsSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createHostServer, type HostServer } from '@ivshmem/host-server';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const command = fileURLToPath(new URL('../dist/bin/ivshmem.js', import.meta.url));

describe('a command whose output is not read', () => {
  let directory: string;
  let pipe: number;
  let server: HostServer;
  const children: ChildProcess[] = [];

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'ivshmem-unread-'));
    const path = join(directory, 'pipe');
    execFileSync('mkfifo', [path]);
    // Both ends, so that a blocking write to the full pipe never returns.
    pipe = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
    try {
      for (;;) writeSync(pipe, 'x');
    } catch (error) {
      expect((error as NodeJS.ErrnoException).code).toBe('EAGAIN');
    }
    server = createHostServer({
      socketPath: join(directory, 'server'),
      size: 2 ** 20,
      outputSectionSize: 2 ** 16,
    });
  });

  afterEach(() => {
    for (const child of children.splice(0)) if (child.exitCode === null) child.kill('SIGKILL');
    server.close();
    closeSync(pipe);
    rmSync(directory, { recursive: true });
  });

  function start(...argv: string[]): ChildProcess {
    const blocking = openSync(join(directory, 'pipe'), 'r+');
    const child = spawn(process.execPath, [command, ...argv], {
      cwd: directory,
      stdio: ['ignore', blocking, blocking],
    });
    closeSync(blocking);
    children.push(child);
    return child;
  }

  async function exists(path: string): Promise<void> {
    while (!existsSync(path)) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  const running: [string, string[]][] = [
    ['device', ['device', '-S', './server', '--vfio-user', './wait']],
    ['device --json', ['device', '-S', './server', '--vfio-user', './wait', '--json', '--stats', '1']],
    ['server', ['server', '-F', '-v', '-S', './wait']],
  ];
  it.each(running)('ends in order on SIGTERM: %s', async (_name, argv) => {
    const wait = join(directory, 'wait');
    const child = start(...argv);
    await exists(wait);
    child.kill('SIGTERM');
    expect(await once(child, 'exit')).toEqual([0, null]);
    expect(existsSync(wait)).toBe(false);
  });

  it('ends with its exit code when its arguments are wrong', async () => {
    const child = start('device', '--nonsense');
    expect(await once(child, 'exit')).toEqual([2, null]);
  });
});
