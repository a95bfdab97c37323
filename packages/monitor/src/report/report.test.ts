import { once } from 'node:events';
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ControlServer } from '../control/control-server.ts';
import { linksOf } from './links.ts';
import { watchPart } from './part-watch.ts';
import { decodeProcessReport, type PartReport, type ProcessReport } from './report.ts';
import { socketName } from './socket-name.ts';
import { findProcesses, handleStatus } from './status.ts';

const since = '2026-01-02T03:04:05.678Z';
const server = {
  kind: 'server',
  link: 'blue',
  socket: '/run/blue.sock',
  since,
  size: 4 << 20,
  outputSectionSize: 1 << 20,
  maxPeers: 2,
  vectors: 2,
  protocol: 1,
  peers: [{ id: 0, pid: 7, uid: 0, gid: 0, since, state: 0xffffffff, waiting: 0 }],
} as const satisfies PartReport;
const tap = {
  kind: 'interface',
  link: null,
  socket: '/run/blue.sock',
  since,
  tap: 'ivn0',
  netns: null,
  pci: null,
  id: 1,
  mtu: 16384,
  outputSectionSize: 1 << 20,
  local: 'RUN',
  peer: 'RUN',
  carrier: true,
  offloads: ['checksum'],
  stats: { txFrames: 3 },
  log: { time: since, text: 'hello' },
} as const satisfies PartReport;
const process_: ProcessReport = { command: 'net', pid: 7, since, ready: true, parts: [server, tap] };

describe('a report', () => {
  it('is accepted as it was sent, without fields of later versions', () => {
    expect(decodeProcessReport(JSON.parse(JSON.stringify({ ...process_, more: 1 })))).toEqual(process_);
  });

  const part = (change: object) => ({ ...process_, parts: [{ ...tap, ...change }] });
  const invalid: [string, unknown][] = [
    ['null', null],
    ['a list', []],
    ['without parts', { ...process_, parts: undefined }],
    ['with an unknown kind of part', part({ kind: 'constructor' })],
    ['with a text for a number', part({ mtu: '16384' })],
    ['with a fraction', part({ id: 0.5 })],
    ['with an object for a text', part({ tap: {} })],
    ['with a text in the counters', part({ stats: { txFrames: '\x1b[2J' } })],
    ['with a time that is none', part({ since: 'soon' })],
    ['with a list for the counters', part({ stats: [] })],
    ['with peers that are no list', { ...process_, parts: [{ ...server, peers: { length: 1 } }] }],
  ];
  it.each(invalid)('is rejected if it is %s', (_, report) => {
    expect(() => decodeProcessReport(report)).toThrow(TypeError);
  });

  it('says since when a part has been in its state, and its last line', () => {
    const listeners: ((value: string) => void)[] = [];
    const log: ((text: string) => void)[] = [];
    vi.useFakeTimers({ now: 1000, toFake: ['Date'] });
    const snapshot = watchPart({
      info: 'info',
      state$: {
        subscribe(next: (value: string) => void) {
          listeners.push(next);
          next('INIT');
        },
      },
      log$: { subscribe: (next: (text: string) => void) => log.push(next) },
      stats: () => ({ txFrames: 1 }),
    });
    const stats = { txFrames: 1 };
    expect(snapshot()).toEqual({
      info: 'info',
      state: 'INIT',
      since: new Date(1000).toISOString(),
      stats,
      log: null,
    });
    vi.setSystemTime(2000);
    listeners[0]!('RUN');
    vi.setSystemTime(3000);
    log[0]!('a line');
    const time = new Date(3000).toISOString();
    expect(snapshot()).toMatchObject({
      state: 'RUN',
      since: new Date(2000).toISOString(),
      log: { time, text: 'a line' },
    });
    vi.useRealTimers();
  });
});

describe('processes', () => {
  let directory: string;
  const open: { close(): void }[] = [];

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'ivshmem-report-'));
    vi.stubEnv('IVSHMEM_RUNTIME_DIR', directory);
  });

  afterEach(() => {
    for (const each of open.splice(0)) each.close();
    vi.unstubAllEnvs();
    rmSync(directory, { recursive: true });
  });

  /** A process of this user that sends `reply`, whatever it is asked. */
  async function pretend(name: string, reply: string): Promise<Server> {
    const server = createServer((socket) =>
      socket
        .on('error', () => {})
        .resume()
        .end(reply),
    );
    server.listen(join(directory, `${name}.ctl`));
    await once(server, 'listening');
    open.push(server);
    return server;
  }

  it('are found, with those that do not answer as they should', async () => {
    const control = ControlServer.listen('vm');
    open.push(control);
    handleStatus(control, 'vm', () => ({ ready: true, parts: [server, tap] }));
    await pretend('net-1', '{"error":"out of order"}\n');
    await pretend('net-2', '{"data":{"command":"\\u001b[2J"}}\n');
    await pretend('net-3', '');
    const { processes, hidden } = await findProcesses();
    expect(hidden).toBe(0);
    expect(
      processes.map(({ name, problem }) => [name, problem?.replace(`${directory}/`, '') ?? null]),
    ).toEqual([
      ['net-1', 'net-1.ctl: out of order'],
      ['net-2', 'net-2.ctl: invalid report: not a whole number'],
      ['net-3', 'net-3.ctl: no reply'],
      [`vm-${process.pid}`, null],
    ]);
    expect(processes[3]).toMatchObject({
      uid: process.getuid!(),
      report: { command: 'vm', pid: process.pid },
    });
  });

  it('are shown link by link', () => {
    const named = (name: string, ...parts: PartReport[]) => ({
      name,
      uid: 0,
      problem: null,
      report: { ...process_, parts },
    });
    const processes = [
      named('net-1', tap, { ...tap, tap: 'ivn9', socket: null, pci: '0000:00:01.0' }),
      named('server-2', server, {
        kind: 'failure',
        name: 'red',
        link: 'red',
        socket: null,
        since,
        problem: 'x',
      }),
      { name: 'net-3', uid: 0, problem: 'no reply', report: null },
    ];
    const links = linksOf({ processes, hidden: 0 });
    expect(
      links.map(({ name, up, parts }) => [name, up, parts.map(({ process: { name } }) => name)]),
    ).toEqual([
      ['blue', true, ['net-1', 'server-2']],
      ['0000:00:01.0', true, ['net-1']],
      ['red', false, ['server-2']],
    ]);
  });

  it('name a socket in the same way, whatever path they were given', () => {
    symlinkSync(directory, join(directory, 'link'));
    expect(socketName(join(directory, 'link/../link/socket'))).toBe(join(directory, 'socket'));
    expect(socketName(join(directory, 'missing/socket'))).toBe(join(directory, 'missing/socket'));
  });
});
