import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const ivshmem = fileURLToPath(new URL('../../dist/bin/ivshmem.js', import.meta.url));
const store = import.meta.resolve('@ivshmem/linux/process');
const memory = import.meta.resolve('@ivshmem/linux/memory');

/** What a supervised program does, in a module with `store`, `notifier` and a `state` that counts its starts. */
const PROGRAM = `
  import { openDescriptorStore, serviceNotifier } from ${JSON.stringify(store)};
  import { StateMemory } from ${JSON.stringify(memory)};
  const store = openDescriptorStore(process.env, process.pid);
  const notifier = serviceNotifier(process.env.NOTIFY_SOCKET);
  const left = store.take('state');
  const state = left === undefined ? StateMemory.create('test', 1, 64) : StateMemory.adopt(left, 'test', 1, 64);
  if (left === undefined) store.put('state', state.fd);
  const starts = ++new Uint32Array(state.mapping.buffer, state.offset, 1)[0];
  const say = (text) => process.stdout.write(text + '\\n');
`;

describe('ivshmem supervise', () => {
  let folder: string;
  let supervisor: ChildProcess | undefined;
  let output = '';
  let errors = '';
  beforeEach(() => {
    folder = mkdtempSync('/tmp/ivshmem-supervise-test-');
  });
  afterEach(async () => {
    if (supervisor?.exitCode === null && supervisor.signalCode === null) {
      supervisor.kill('SIGTERM');
      await once(supervisor, 'exit');
    }
    expect(readdirSync(folder)).toEqual([]);
    rmSync(folder, { recursive: true });
  });

  function supervise(program: string, ...options: string[]): ChildProcess {
    const node = [process.execPath, '--input-type=module', '-e', `${PROGRAM}\n${program}`];
    output = '';
    errors = '';
    supervisor = spawn(process.execPath, [ivshmem, 'supervise', ...options, '--', ...node], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, TMPDIR: folder },
    });
    supervisor.stdout!.on('data', (chunk) => {
      output += chunk;
    });
    supervisor.stderr!.on('data', (chunk) => {
      errors += chunk;
    });
    return supervisor;
  }

  async function ended(): Promise<number | null> {
    const [code] = await once(supervisor!, 'close');
    return code;
  }

  async function said(text: string): Promise<void> {
    while (!output.includes(text)) await once(supervisor!.stdout!, 'data');
  }

  it('passes descriptors and memory on to the process after one that was killed', async () => {
    supervise(`
      const { openSync, readFileSync, writeSync } = await import('node:fs');
      say(starts + ' ' + process.env.LISTEN_FDS + ' ' + store.left.length);
      if (starts === 1) {
        for (let i = 0; i < 300; i++) store.put('f' + i, openSync('/proc/version'));
        process.kill(process.pid, 'SIGKILL');
      }
      const fds = store.left.map((name) => [name, store.take(name)]);
      say(fds.every(([name, fd], i) => name === 'f' + i && readFileSync(fd).length > 0));
    `);
    expect(await ended()).toBe(0);
    expect(output).toBe('1 undefined 0\n2 301 300\ntrue\n');
    expect(errors).toMatch(
      /^ivshmem supervise: \S+node\S* --input-type=module has ended by SIGKILL; starting it again\n$/,
    );
  });

  it.each([0, 2])('ends with exit code %i, after which the program is not started again', async (code) => {
    supervise(`say(starts); process.exitCode = ${code};`);
    expect([await ended(), output, errors]).toEqual([code, '1\n', '']);
  });

  it('ends a crash loop with one line', async () => {
    supervise('say(starts); process.exitCode = 7;', '--tries', '4');
    expect([await ended(), output]).toEqual([1, '1\n2\n3\n4\n']);
    expect(errors.trim().split('\n')).toHaveLength(4);
    expect(errors).toMatch(/has failed 4 times in a row, at last by exit code 7: giving up\n$/);
  });

  it('does not start a program again that does not exist', async () => {
    const { execPath } = process;
    supervisor = spawn(execPath, [ivshmem, 'supervise', '/no/such/program'], { stdio: 'ignore' });
    expect(await ended()).toBe(127);
  });

  it('passes SIGTERM on and ends with the program; SIGUSR1 restarts it', async () => {
    supervise(`
      const timer = setInterval(() => {}, 1000);
      process.on('SIGHUP', () => say('hangup ' + starts));
      process.on('SIGTERM', () => { say('stop ' + starts); clearInterval(timer); });
      notifier.ready('');
      say('start ' + starts);
    `);
    await said('start 1');
    supervisor!.kill('SIGHUP');
    await said('hangup 1');
    supervisor!.kill('SIGUSR1');
    await said('start 2');
    supervisor!.kill('SIGTERM');
    expect(await ended()).toBe(0);
    expect(output).toBe('start 1\nhangup 1\nstop 1\nstart 2\nstop 2\n');
    expect(errors).toBe('');
  });

  it('counts the messages of its program only', async () => {
    supervise(
      `
      const { spawnSync } = await import('node:child_process');
      if (starts === 1) {
        const other = ${JSON.stringify(`
          import { openDescriptorStore } from ${JSON.stringify(store)};
          openDescriptorStore(process.env, process.pid).put('theirs', 0);`)};
        spawnSync(process.execPath, ['--input-type=module', '-e', other], { stdio: 'inherit' });
        store.put('ours', 0);
        process.exit(1);
      }
      say(store.left.join());
      `,
    );
    expect([await ended(), output]).toEqual([0, 'ours\n']);
  });

  it('says once that there is more to keep than it may', async () => {
    supervise(
      `for (let i = 0; i < 5; i++) store.put('f' + i, 0);
       if (starts === 1) process.exit(1);
       say(store.left.join());`,
      '--descriptors',
      '3',
    );
    expect([await ended(), output]).toEqual([0, 'f0,f1\n']);
    expect(errors.match(/has more than 3 descriptors to keep/g)).toHaveLength(1);
  });

  it('starts the program as usual if the standby process has ended', async () => {
    // This program is none of ivshmem: it does not wait, so it ends at once as a standby process.
    supervise(
      `if (process.env.IVSHMEM_STANDBY !== undefined) process.exit(5);
       notifier.ready('');
       say('start ' + starts);
       if (starts === 1) setTimeout(() => process.kill(process.pid, 'SIGKILL'), 1500);`,
      '--standby',
    );
    expect([await ended(), output]).toEqual([0, 'start 1\nstart 2\n']);
  });

  it('holds nothing that its program has not stored', async () => {
    supervise(`say('start'); setInterval(() => {}, 1000);`);
    await said('start');
    const links = readdirSync(`/proc/${supervisor!.pid}/fd`);
    expect(links.length).toBeLessThan(40);
    const cpu = () => readFileSync(`/proc/${supervisor!.pid}/stat`, 'latin1').split(' ').slice(13, 15).join();
    const before = cpu();
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(cpu()).toBe(before);
  });
});
