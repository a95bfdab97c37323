import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ping } from '@ivshmem/traffic';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { processesWith, until } from './support/processes.ts';
import { COMMAND, run } from './support/program.ts';
import { describeNetwork } from './support/requirements.ts';
import { Rig } from './support/rig.ts';

const ENTER = '\x1b[?1049h\x1b[?25l';
const LEAVE = '\x1b[?25h\x1b[?1049l';

describeNetwork('ivshmem top', () => {
  let runtime: string;
  let rig: Rig;

  beforeAll(async () => {
    runtime = mkdtempSync(join(tmpdir(), 'ivshmem-top-'));
    vi.stubEnv('IVSHMEM_RUNTIME_DIR', runtime);
    rig = await Rig.up();
  });

  afterAll(async () => {
    await rig.close();
    vi.unstubAllEnvs();
    rmSync(runtime, { recursive: true });
  });

  it('prints the rates of a link under load, as JSON and as text', async () => {
    const load = ping({ netns: rig.namespaces[0].path, to: '10.64.0.2', count: 400, intervalMs: 10 });
    const [json, text] = await Promise.all([
      run(['top', '--json', '--count', '2']),
      run(['top', '--count', '1', '--sort', 'tx']),
    ]);
    await load;
    const objects = json.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(objects).toHaveLength(2);
    expect(objects[1].rows).toHaveLength(2);
    for (const row of objects[1].rows) {
      expect(row).toMatchObject({ link: rig.socket, part: 'ivn0', state: 'up: RUN, peer RUN', dropsBy: {} });
      for (const column of ['rx', 'tx', 'txBits', 'wakeups']) expect(row.rates[column]).toBeGreaterThan(1);
    }
    const lines = text.stdout.split('\n');
    expect(lines[0]).toMatch(/^LINK +PART +STATE +RX FRAMES\/s +TX FRAMES\/s\* +RX bit\/s .* WAKEUPS\/s$/);
    expect(lines[1]).toMatch(/^\S+ +ivn0 +up: RUN, peer RUN +[\d.]+k? +[\d.]+k? +[\d.]+[kM]? +/);
    expect(lines.slice(3)).toEqual(['', '']);
    expect([json.code, json.stderr, text.code, text.stderr]).toEqual([0, '', 0, '']);
  });

  it('ends when its output is closed', async () => {
    const shell = spawn('sh', ['-c', `"${process.execPath}" "${COMMAND}" top | head -n 1`], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = await once(shell.stdout.setEncoding('utf8'), 'data');
    expect(line).toMatch(/^LINK/);
    await once(shell, 'close');
  });

  /** Runs it on a terminal of its own; resolves with what the terminal got. */
  async function onTerminal(
    mark: string,
    act: (type: (keys: string) => void, shown: () => string) => Promise<void>,
  ) {
    const command = `stty cols 200 rows 50; exec "${process.execPath}" "${COMMAND}" top`;
    const script = spawn('script', ['-qefc', command, '/dev/null'], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, TOP_TEST: mark, TERM: 'xterm' },
    });
    let shown = '';
    script.stdout.setEncoding('utf8').on('data', (text: string) => {
      shown += text;
    });
    const ended = once(script, 'close');
    await until(() => shown.includes('WAKEUPS/s'));
    await act(
      (keys) => script.stdin.write(keys),
      () => shown,
    );
    await ended;
    return { shown, code: script.exitCode };
  }

  it('shows one page on a terminal, sorted by the column chosen, and restores it at q', async () => {
    const { shown, code } = await onTerminal('q', async (type, now) => {
      type('>');
      await until(() => now().includes('RX FRAMES/s*'));
      type('<');
      type('<');
      await until(() => now().includes('WAKEUPS/s*'));
      type('q');
    });
    expect(shown.startsWith(ENTER)).toBe(true);
    expect(shown.endsWith(LEAVE)).toBe(true);
    expect(shown).toContain('3 processes');
    expect(code).toBe(0);
  });

  it.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('restores the terminal at %s', async (signal) => {
    const { shown } = await onTerminal(signal, async () => {
      // The last one that was started; before it are the terminal and a shell.
      process.kill(processesWith(`TOP_TEST=${signal}`).at(-1)!, signal);
    });
    expect(shown.endsWith(LEAVE)).toBe(true);
  });

  it('restores the terminal at Ctrl-C', async () => {
    const { shown } = await onTerminal('c', async (type) => type('\x03'));
    expect(shown.endsWith(LEAVE)).toBe(true);
  });
});
