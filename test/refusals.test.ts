import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Exit, Program } from './support/program.ts';
import { describeWhere } from './support/requirements.ts';

// What the system refuses: descriptors, threads, namespaces, files. Each ends in one line with the remedy, exit code 1.

const COMMAND = fileURLToPath(new URL('../packages/cli/bin/ivshmem.js', import.meta.url));
const NOBODY = 64_998;

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'ivshmem-refused-'));
});

afterAll(() => {
  expect(readdirSync(directory)).toEqual([]);
  rmSync(directory, { recursive: true });
});

/** Runs `ivshmem` behind a command that takes something away from it. */
function behind(command: readonly string[], argv: readonly string[], env = {}): Promise<Exit> {
  const program = new Program(argv, { env: { ...process.env, ...env } }, [
    ...command,
    process.execPath,
    COMMAND,
  ]);
  program.child.stdin?.end();
  return program.exited;
}

function expectLine({ code, stdout, stderr }: Exit, pattern: RegExp): void {
  expect(stderr).toMatch(/^ivshmem[^\n]*: [^\n]+\n$/);
  expect(stderr).toMatch(pattern);
  expect([stdout, code]).toEqual(['', 1]);
}

describe('too few descriptors', () => {
  const commands: string[][] = [
    ['server', '-F', '-S', 'SOCKET'],
    ['net', '-S', 'SOCKET'],
    ['device', '-S', 'SOCKET', '--vfio-user', 'VFIO'],
    ['vm', '--vfio-user', 'VFIO'],
    ['peers', '-S', 'SOCKET'],
    ['demo'],
  ];
  const cases = commands.flatMap((argv) => [24, 30].map((limit) => [argv[0]!, limit, argv] as const));

  it.each(cases)('ivshmem %s with %i', async (_name, limit, argv) => {
    const paths = argv.map((word) => (/^[A-Z]+$/.test(word) ? join(directory, word) : word));
    const result = await behind(['prlimit', `--nofile=${limit}:${limit}`, '--'], paths);
    // Node's loader takes a package that it cannot open for one that is missing.
    expectLine(
      result,
      /(EMFILE: |Cannot find package ).*: .*raise the limit of (open files|this process) .*ulimit -n/,
    );
  });
});

it('a Node that is too old is said to be', async () => {
  const old = 'Object.defineProperty(process,"versions",{value:{...process.versions,node:"18.20.1"}})';
  const program = new Program(['peers'], {}, [
    process.execPath,
    '--import',
    `data:text/javascript,${old}`,
    COMMAND,
  ]);
  expectLine(await program.exited, /^ivshmem: this is Node 18\.20\.1: install 20\.19 or later\n$/);
});

const notRoot = process.getuid?.() === 0 ? null : 'only root can take things away from a command';

describeWhere(notRoot, 'a machine that refuses', () => {
  const shell = (script: string) => ['unshare', '--mount', '--', 'sh', '-c', `${script} && exec "$@"`, 'sh'];
  const asNobody = `setpriv --reuid ${NOBODY} --regid ${NOBODY} --clear-groups`;

  it('threads', async () => {
    // Node itself takes eleven, and ends without a word if it gets fewer: none is left for the device.
    const server = new Program([
      'server',
      '-F',
      '--json',
      '-S',
      join(directory, 'threads'),
      '-P1',
      '-o64K',
      '-l1M',
    ]);
    await server.line(({ type }) => type === 'listening');
    const limited = [...asNobody.split(' '), '--', 'prlimit', '--nproc=11:11', '--'];
    const path = join(directory, 'threads');
    chmodSync(path, 0o666);
    chmodSync(directory, 0o777);
    const result = await behind(limited, ['device', '-S', path, '--vfio-user', join(directory, 'vm')]);
    expectLine(
      result,
      /a thread can't be started: EAGAIN: raise the limit of threads \("ulimit -u", TasksMax=/,
    );
    await server.stop();
  });

  it('user namespaces', async () => {
    const script =
      'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --ambient-caps -all --inh-caps -all -- "$@"';
    const user = ['unshare', '--user', '--map-current-user', '--keep-caps', '--', 'sh', '-c', script, 'sh'];
    const none = [...asNobody.split(' '), '--', ...user];
    expectLine(
      await behind(none, ['demo']),
      /The demo can't run here\. .* can't be made .*No space left on device.*max_user_namespaces/,
    );
  });

  it('to write to the directory for temporary files', async () => {
    const readOnly = shell(`mount -t tmpfs -o ro ivshmem-test ${directory}`);
    expectLine(
      await behind(readOnly, ['demo'], { TMPDIR: directory }),
      /EROFS: .*mkdtemp .*: set TMPDIR to a directory that can be written to\n$/,
    );
  });

  it('/proc', async () => {
    const without = shell('mount -t tmpfs ivshmem-test /proc');
    expectLine(await behind(without, ['demo']), /\/proc\/thread-self\/status': mount it with "mount -t proc/);
  });

  it("koffi's library", async () => {
    const libraries = fileURLToPath(new URL('../node_modules/@koromix', import.meta.url));
    const without = shell(`mount -t tmpfs ivshmem-test ${libraries}`);
    expectLine(
      await behind(without, ['peers']),
      /koffi's native library can't be loaded: .*: install the packages on/,
    );
  });
});
