import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { runServer } from './run-server.ts';

describe('a process with servers', () => {
  let directory: string;
  let config: string;
  let abort: AbortController;
  /** Collects the log. */
  let lines: Record<string, unknown>[];
  let stderr: string;
  let onLine: (line: Record<string, unknown>) => void;

  beforeEach(() => {
    directory = mkdtempSync('/tmp/serve-');
    config = join(directory, 'links.json');
    abort = new AbortController();
    lines = [];
    stderr = '';
    onLine = () => {};
  });
  afterEach(() => {
    vi.useRealTimers();
    rmSync(directory, { recursive: true });
  });

  const configure = (...links: object[]) => writeFileSync(config, JSON.stringify({ links }));
  const run = (...argv: string[]) =>
    runServer(argv, {
      dialect: 'extended',
      program: 'server',
      environment: {},
      signal: abort.signal,
      stdout: {
        write(text: string) {
          const line = JSON.parse(text);
          lines.push(line);
          onLine(line);
        },
      },
      stderr: {
        write(text: string) {
          stderr += text;
        },
      },
    });
  const messages = () => lines.map(({ level, msg }) => `${level}: ${msg}`);

  it('serves the other links if one cannot be started, and retries that', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const missing = join(directory, 'missing');
    configure(
      { name: 'bad', socket: join(missing, 'socket') },
      { name: 'good', socket: join(directory, 'good') },
    );
    const ended = run('-F', '--config', config);
    await vi.waitUntil(() => vi.getTimerCount() > 0);
    expect(existsSync(join(directory, 'good'))).toBe(true);
    const reason = `bind ${missing}/socket: ENOENT: no such file or directory: create the directory first`;
    const line = `error: bad cannot be started, retrying every 10 s: ${reason}`;
    expect(messages()).toContain(line);
    vi.advanceTimersByTime(30_000);
    expect(messages().filter((text) => text === line)).toHaveLength(1);
    mkdirSync(missing);
    vi.advanceTimersByTime(10_000);
    expect(messages()).toContain('info: bad started after retries');
    expect(existsSync(join(missing, 'socket'))).toBe(true);
    abort.abort();
    expect(await ended).toBe(0);
    expect(readdirSync(missing)).toEqual([]);
  });

  it('ends with status 1 if no link can be started', async () => {
    configure({ socket: '/nonexistent/a' }, { socket: '/nonexistent/b' });
    expect(await run('-F', '--config', config)).toBe(1);
    expect(stderr).toMatch(
      /^server: none of 2 links could be started: bind \/nonexistent\/a: ENOENT: [^\n]*\n$/,
    );
  });

  it('waits for SIGHUP, with a warning, if there are no links', async () => {
    configure();
    onLine = ({ type }) => type === 'no-links' && abort.abort();
    expect(await run('-F', '--config', config)).toBe(0);
    expect(messages()).toContain('warn: the configuration has no links: add some and send SIGHUP');
  });

  it('serves links without metrics if their port is in use', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const { port } = other.address() as AddressInfo;
    onLine = ({ type }) => type === 'metrics-failed' && abort.abort();
    expect(await run('-F', '-S', join(directory, 'socket'), '--metrics', String(port))).toBe(0);
    expect(lines.map(({ type }) => type)).toEqual(['listening', 'metrics-failed', 'closed']);
    expect(messages()[1]).toBe(
      `error: no metrics: 127.0.0.1:${port}: EADDRINUSE: in use by another program: choose another address or port`,
    );
    other.close();
    await once(other, 'close');
  });

  it.each([
    ['/dev/zero', 'not a regular file'],
    ['/dev/stdin', /not a regular file|no such device/],
    ['/', 'not a regular file'],
    ['/nonexistent', 'ENOENT'],
  ])('reads no configuration from %s', async (path, problem) => {
    expect(await run('-F', '--config', path)).toBe(2);
    expect(stderr.split('\n')[0]).toMatch(`server: ${path}: cannot be read: `);
    expect(stderr.split('\n')[0]).toMatch(problem);
  });

  it('rejects a configuration that is too long', async () => {
    writeFileSync(config, ' '.repeat(2 ** 24 + 1));
    expect(await run('-F', '--config', config)).toBe(2);
    expect(stderr).toContain(`${config}: cannot be read: longer than 16777216 bytes`);
  });
});
