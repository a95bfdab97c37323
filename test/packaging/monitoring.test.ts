import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { Program } from '../support/program.ts';
import { describeNetwork } from '../support/requirements.ts';

const folder = fileURLToPath(new URL('../../packaging/monitoring/', import.meta.url));
const dashboard = JSON.parse(readFileSync(join(folder, 'grafana-dashboard.json'), 'utf8'));
const rules = readFileSync(join(folder, 'alerts.yml'), 'utf8');

const missing = spawnSync('promtool', ['--version']).error === undefined ? null : 'promtool is not installed';
const withPromtool = missing === null ? it : it.skip;
const note = missing === null ? '' : ` (skipped: ${missing}; Debian: prometheus)`;

/** Exit code and output of promtool. */
function promtool(argv: readonly string[], input = ''): [number | null, string] {
  const { status, stdout, stderr } = spawnSync('promtool', argv, { input, encoding: 'utf8', cwd: folder });
  return [status, stdout + stderr];
}

/** Expressions of the dashboard, with numbers for Grafana's variables. */
const expressions: string[] = dashboard.panels.flatMap(({ targets }: { targets: { expr: string }[] }) =>
  targets.map(({ expr }) => expr.replaceAll('$__rate_interval', '1m').replaceAll('$link', '.*')),
);

describe('packaging/monitoring', () => {
  withPromtool(`has alert rules that fire as they should${note}`, () => {
    expect(promtool(['check', 'rules', 'alerts.yml'])).toEqual([0, expect.stringContaining('SUCCESS')]);
    expect(promtool(['test', 'rules', 'alerts.test.yml'])).toEqual([0, expect.stringContaining('SUCCESS')]);
  });

  withPromtool(`has a dashboard whose expressions Prometheus understands${note}`, () => {
    const directory = mkdtempSync(join(tmpdir(), 'ivshmem-dashboard-'));
    const file = join(directory, 'expressions.json');
    const asRules = expressions.map((expr, at) => ({ record: `panel:${at}`, expr }));
    writeFileSync(file, JSON.stringify({ groups: [{ name: 'dashboard', rules: asRules }] }));
    expect(promtool(['check', 'rules', file])).toEqual([
      0,
      expect.stringContaining(`${expressions.length} rules`),
    ]);
    rmSync(directory, { recursive: true });
  });
});

describeNetwork('metrics of running processes', () => {
  const directory = mkdtempSync(join(tmpdir(), 'ivshmem-metrics-'));
  const programs: Program[] = [];
  const texts: string[] = [];

  /** Starts a process and reads its metrics. */
  async function scrape(
    argv: readonly string[],
    url: (line: Record<string, unknown>) => string | null,
    isReady: (text: string) => boolean,
  ): Promise<void> {
    const program = new Program([...argv, '--metrics', '0', '--json']);
    programs.push(program);
    let stderr = '';
    program.child.stderr!.on('data', (text) => {
      stderr += text;
    });
    const found = await vi.waitFor(
      () => {
        const fromLog = program.lines.map(url).find((each) => each !== null);
        const address = fromLog ?? /metrics at (\S+)/.exec(stderr)?.[1];
        if (!address) throw new Error(`no metrics yet: ${stderr}`);
        return address;
      },
      { timeout: 60_000 },
    );
    const text = await vi.waitFor(
      async () => {
        const body = await (await fetch(found)).text();
        expect(isReady(body)).toBe(true);
        return body;
      },
      { timeout: 60_000 },
    );
    texts.push(text);
  }

  beforeAll(async () => {
    vi.stubEnv('IVSHMEM_RUNTIME_DIR', directory);
    const socket = join(directory, 'blue.sock');
    const urlOf = (line: Record<string, unknown>) => (line.type === 'metrics' ? String(line.url) : null);
    const isSet = (name: string) => (text: string) => text.includes(`\n${name}{`);
    await scrape(['server', '-F', '-S', socket, '-P', '1'], urlOf, isSet('ivshmem_peers'));
    const tap = `ivm${process.pid % 100000}`;
    await scrape(['net', '-S', socket, '--tap', tap], () => null, isSet('ivshmem_interface_up'));
    const vfioUser = join(directory, 'vm.sock');
    await scrape(
      ['device', '-S', socket, '--vfio-user', vfioUser],
      () => null,
      isSet('ivshmem_device_state'),
    );
  }, 120_000);

  afterAll(async () => {
    await Promise.all(programs.map((program) => program.stop()));
    vi.unstubAllEnvs();
    rmSync(directory, { recursive: true });
  });

  it('show links and devices', () => {
    const labels = `link="${directory}/blue.sock"`;
    expect(texts[1]).toMatch(new RegExp(`^ivshmem_interface_up\\{${labels},interface="ivm\\d+"\\} 0$`, 'm'));
    expect(texts[1]).toMatch(/^ivshmem_interface_dropped_frames_total\{.*reason="oversize"\} 0$/m);
    expect(texts[1]).toMatch(/^process_cpu_seconds_total [\d.]+$/m);
    expect(texts[2]).toMatch(/^ivshmem_device_state\{.*device="\S+\/vm\.sock",state="waiting"\} 1$/m);
    expect(texts[2]).toMatch(/^ivshmem_device_state\{.*state="attached"\} 0$/m);
  });

  withPromtool(`follow the rules of promtool check metrics${note}`, () => {
    for (const text of texts) expect(promtool(['check', 'metrics'], text)).toEqual([0, '']);
  });

  it('are those that dashboard, alerts and docs/monitoring.md name', () => {
    const page = readFileSync(join(folder, '../../docs/monitoring.md'), 'utf8');
    const all = new Set(
      texts.flatMap((text) => [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name!)),
    );
    const used = new Set(
      [...expressions, rules, page].flatMap((text) => text.match(/\b(ivshmem|process)_\w+/g) ?? []),
    );
    expect([...used].filter((name) => !all.has(name))).toEqual([]);
    expect(used.size).toBeGreaterThan(15);
  });
});
