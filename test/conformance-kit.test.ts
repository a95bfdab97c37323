import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { Program } from './support/program.ts';

const SERVER = fileURLToPath(new URL('../packages/cli/bin/ivshmem2-server.js', import.meta.url));
const started = (options = '{options}') => `exec ${process.execPath} ${SERVER} -F -S {socket} ${options}`;

const leftovers = () => readdirSync(tmpdir()).filter((name) => name.startsWith('ivshmem-check-'));

/** Runs `ivshmem check`, and returns what it printed as JSON. */
async function check(subject: string, ...argv: string[]) {
  const program = new Program(['check', subject, '--format', 'json', ...argv]);
  const { code, stderr } = await program.exited;
  const results = program.lines.filter(({ event }) => event === 'result');
  return {
    code,
    stderr,
    results,
    failed: results.filter(({ outcome }) => outcome === 'failed'),
    end: program.lines.at(-1),
  };
}

describe('ivshmem check server', () => {
  // That for 1024 clients takes as long as all others: packages/conformance has a test with it.
  const groups = ['init', 'memory', 'order', 'doorbell', 'departure', 'options'].flatMap((name) => [
    '--only',
    name,
  ]);

  it('is passed by ivshmem2-server, which it starts, and leaves nothing behind', async () => {
    const before = leftovers();
    const { code, stderr, failed, end } = await check('server', '--command', started(), ...groups);
    expect({ code, stderr, failed }).toEqual({ code: 0, stderr: '', failed: [] });
    expect(end).toMatchObject({ event: 'end', failedMust: 0, failedShould: 0, skipped: 0 });
    expect(leftovers().filter((name) => !before.includes(name))).toEqual([]);
  });

  it('says what is wrong: exit code 1, and the bytes', async () => {
    // The last -V counts.
    const { code, failed } = await check('server', '--command', started('{options} -V 3'), '--only', 'init');
    expect(code).toBe(1);
    expect(failed).toHaveLength(1);
    expect(failed[0]).toMatchObject({
      id: 'server.init.vectors',
      expected: 'vectors 5',
      came: '3',
      level: 'MUST',
    });
    expect(failed[0].bytes[0].lines[1]).toMatch(/^0x0010: 00 00 00 00 04 00 00 00 03 00 00 00/);
  });

  it('says how a server ended that does not start', async () => {
    const command = 'echo "no such thing" >&2; exit 3 # {socket}';
    const { code, failed } = await check('server', '--command', command, '--only', 'init.first');
    expect(code).toBe(1);
    expect(failed[0]).toMatchObject({ came: 'its end: exit code 3: no such thing' });
  });

  it.each([
    [[], 'give either --command or --socket'],
    [['--command', 'true'], '--command "true": must contain {socket}'],
    [
      ['--socket', '/tmp/x', '--only', 'nothing'],
      '--only nothing: no check has this identifier: --list shows them',
    ],
    [['--list', '--seed', '4294967296'], 'It must be 0 to 4294967295.'],
  ])('rejects %j', async (argv, complaint) => {
    const { code, stderr } = await check('server', ...argv);
    expect(code).toBe(2);
    expect(stderr).toMatch(/^ivshmem: [^\n]+\n$/);
    expect(stderr).toContain(complaint);
  });

  it('ends on SIGINT, with everything that it has started', async () => {
    const before = leftovers();
    const program = new Program(['check', 'server', '--command', 'sleep 1000; : {socket}']);
    await program.line((line) => typeof line === 'string' && line.includes('checks, seed'));
    program.child.kill('SIGINT');
    expect(await program.exited).toMatchObject({ code: 1, stderr: '' });
    expect(leftovers().filter((name) => !before.includes(name))).toEqual([]);
  });
});
