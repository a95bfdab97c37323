import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { alternate, type Reading } from '../bench/src/alternate.ts';
import { Recorder } from '../bench/src/recorder.ts';
import { Program } from './support/program.ts';
import { describeNetwork, describeWhere } from './support/requirements.ts';
import { Lines } from './vm/src/lines.ts';

const BENCH = fileURLToPath(new URL('../bench/dist/main.js', import.meta.url));
const NOBODY = 65534;

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ivshmem-bench-test-'));
});

afterEach(() => {
  rmSync(directory, { recursive: true });
});

describe('subjects that are measured in turn', () => {
  async function compare(
    measure: (name: string, round: number) => Reading[],
    signal = new AbortController().signal,
  ) {
    const recorder = new Recorder(() => {});
    const subjects = ['a', 'b'].map((name) => ({ name, round: 0 }));
    const comparison = {
      title: 'speed',
      subjects,
      measure: async (subject: { name: string; round: number }) => measure(subject.name, subject.round++),
    };
    await alternate(comparison, { rounds: 2, signal, recorder });
    return recorder;
  }
  const reading = (value: number): Reading => ({ what: 'speed', unit: 'km/h', value });
  const one = [{ what: 'speed', subject: 'a', unit: 'km/h', values: [1, 1] }];

  it.each([0, 1])('are left out, with the reason, if they fail in round %i', async (failing) => {
    const { findings, failed } = await compare((name, round) => {
      if (name === 'b' && round === failing) throw new Error('out of fuel\nat the second line');
      return [reading(1)];
    });
    expect(findings).toEqual({ measurements: one, omitted: ['b in "speed": out of fuel'] });
    expect(failed).toBe(true);
  });

  it('are left out if the figure is none, or is not there in every round', async () => {
    const nan = await compare((name) => [reading(name === 'a' ? 1 : 0 / 0)]);
    expect(nan.findings).toEqual({ measurements: one, omitted: ['b in "speed": speed is NaN'] });
    const uneven = await compare((name, round) => (name === 'a' || round === 0 ? [reading(1)] : []));
    expect(uneven.findings.measurements).toEqual(one);
  });

  it('are not taken for failed when the benchmarks are ended', async () => {
    const end = new AbortController();
    const ended = compare(() => {
      end.abort();
      throw new Error('interrupted by this');
    }, end.signal);
    await expect(ended).rejects.toThrow(/aborted/);
  });
});

describeNetwork('npm run bench', () => {
  const bench = (argv: readonly string[], options = {}) =>
    new Program([BENCH, ...argv, '--rounds', '1', '--output', directory], options, [process.execPath]);

  it('measures what it can without compiler, VDE and socat, and keeps that when it is ended', async () => {
    const program = bench(['tap'], { env: { PATH: directory } });
    await program.line((line) => /^ {4}veth /.test(line));
    const { code, stdout, stderr } = await program.stop();
    const unfinished = join(directory, 'tap.json.unfinished');
    expect(stderr).toBe(`bench: what was measured until then is in ${unfinished}\nbench: interrupted\n`);
    expect(code).toBe(1);
    expect(stdout).toMatch(/Without C: cc not found; install with "apt-get install [^\n]*gcc libc6-dev"\n/);
    expect(stdout).toMatch(/Without VDE: vde_switch, vde_plug2tap not found; /);
    const { measurements, omitted } = JSON.parse(readFileSync(unfinished, 'utf8'));
    expect(measurements[0]).toMatchObject({ subject: 'ivshmem', what: 'UDP, 64-byte frames' });
    expect(omitted.length).toBe(4);
    expect(readdirSync(directory)).toEqual(['tap.json.unfinished']);
  });
});

const notRoot = process.getuid?.() === 0 ? null : 'only root can run a program as another user';

describeWhere(notRoot, 'npm run bench, as a user without privileges', () => {
  const start = (...argv: string[]) =>
    new Program([BENCH, ...argv], { uid: NOBODY, gid: NOBODY }, [process.execPath]).exited;

  it('says in one line why a part can not be measured', async () => {
    const { code, stdout, stderr } = await start('tap', '--no-save');
    expect([stdout, code]).toEqual(['', 1]);
    expect(stderr).toMatch(/^bench: the part tap cannot be measured here\. This process lacks CAP_[^\n]*\n$/);
  });

  it('says before it measures that results can not be written', async () => {
    const output = join(directory, 'private');
    mkdirSync(output);
    chmodSync(directory, 0o755);
    const { code, stdout, stderr } = await start('micro', '--output', output);
    expect(code).toBe(1);
    expect(stdout).not.toContain('rings');
    expect(stderr).toMatch(/^bench: EACCES: permission denied, open '[^\n]*'\n$/);
  });
});

it('what waits for a line names it, and says what came last, when it does not come', async () => {
  const lines = new Lines('guest 0');
  lines.push('one');
  lines.push('{"event":"state"}');
  await expect(lines.wait('carrier', () => false, 0, 10)).rejects.toThrow(
    /^guest 0: no carrier: waited for 0\.01 s; its last line is: {"event":"state"}$/,
  );
  const ended = lines.wait('carrier', () => false);
  lines.end('it has ended (1)');
  await expect(ended).rejects.toThrow(/^guest 0: no carrier: it has ended \(1\); its last line is: /);
});
