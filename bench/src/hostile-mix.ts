import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Resident } from './resident.ts';
import { ServerProcess } from './server-process.ts';

const USAGE = `Usage: npm run hostile -- [--seconds N] [--deaths N] [--json]
Runs a host server, well-behaved peers, and clients that misbehave in every way at once, for N seconds (default 20),
and reports what that has left behind. --deaths: connections that die at once, each second (default 2000).
Exit status: 0 where nothing was lost, 1 elsewhere.
`;

/** The server's limit, so that further clients are rejected. */
const DESCRIPTORS = 200;
const EVICT_AFTER = 2;
const RESIDENTS = 4;

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '20' },
    deaths: { type: 'string', default: '2000' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
if (values.help) process.stdout.write(USAGE);
else process.exitCode = await main(Number(values.seconds), Number(values.deaths), values.json);

async function main(seconds: number, deaths: number, json: boolean): Promise<number> {
  const directory = mkdtempSync(join(tmpdir(), 'ivshmem-hostile-'));
  const config = join(directory, 'links.json');
  const [attacked, quiet, extra] = ['attacked', 'quiet', 'extra'].map((name) => join(directory, name));
  const link = { vectors: 2, protocol: 1, size: '1M', outputSectionSize: '16K', evictAfter: EVICT_AFTER };
  const links = [
    { name: 'attacked', socket: attacked, maxPeers: 63, ...link },
    { name: 'quiet', socket: quiet, ...link },
  ];
  const configure = (...more: object[]) =>
    writeFileSync(config, JSON.stringify({ links: [...links, ...more] }));
  configure();
  // For the server and those who attack it.
  process.env.IVSHMEM_RUNTIME_DIR = directory;
  let url = '';
  const server = await ServerProcess.start(
    ['--config', config, '--metrics', '0'],
    (line) => {
      if (line.type === 'metrics') url = String(line.url);
      return line.type === 'metrics';
    },
    DESCRIPTORS,
  );
  const residents: Resident[] = [];
  let attackers: ChildProcess | undefined;
  try {
    for (let i = 0; i < RESIDENTS; i++) residents.push(new Resident(attacked!));
    for (let i = 0; i < 2; i++) residents.push(new Resident(quiet!));
    for (const resident of residents) await resident.ready;
    await until(async () => (await metric(url, 'ivshmem_peers{link="attacked"}')) === RESIDENTS);
    const before = { fds: server.openFds, memory: server.residentMemory };

    const lifetimes = evictionTimes(server);
    const script = fileURLToPath(new URL('../dist/hostile-client.js', import.meta.url));
    const target = [attacked, attacked, attacked, extra].join(',');
    const start = () =>
      spawn(process.execPath, [script, target, new URL(url).port, String(deaths)], {
        stdio: ['ignore', 'ignore', 'inherit'],
      });
    attackers = start();
    let rung = 0;
    let killed = 0;
    let reloads = 0;
    const memory: number[] = [];
    const end = performance.now() + seconds * 1000;
    for (let tick = 1; performance.now() < end; tick++) {
      await delay(100);
      rung += ringAll(residents);
      // Growth that does not come to an end shows in these.
      if (tick % Math.ceil(seconds) === 0) memory.push(mebibytes(server.residentMemory));
      if (tick % 10 === 0) {
        // An additional link comes and goes, and every third time the file is broken.
        if (tick % 30 === 0) writeFileSync(config, '{"links": [{');
        else configure(...(tick % 20 === 0 ? [{ name: 'extra', socket: extra, ...link }] : []));
        server.child.kill('SIGHUP');
        reloads++;
      }
      if (tick % 50 === 0) {
        // All of them die at one moment, in the middle of everything.
        attackers.kill('SIGKILL');
        await once(attackers, 'exit');
        attackers = start();
        killed++;
      }
    }
    attackers.kill('SIGKILL');
    await once(attackers, 'exit');
    configure();
    const reloaded = server.line(({ type }) => type === 'reloaded');
    server.child.kill('SIGHUP');
    await reloaded;
    await until(async () => (await metric(url, 'ivshmem_peers{link="attacked"}')) === RESIDENTS);
    await until(async () => server.openFds <= before.fds + 1);
    lifetimes.sort((a, b) => a - b);
    const lost = residents.filter((resident) => resident.lost !== null).map(({ lost }) => lost);
    const text = await (await fetch(url)).text();
    const total = (name: string, label = '') => sum(text, name, label);
    const result = {
      seconds,
      joins: total('ivshmem_joins_total'),
      refused: total('ivshmem_refusals_total'),
      refusedForDescriptors: total('ivshmem_refusals_total', 'cause="descriptors"'),
      refusedForIds: total('ivshmem_refusals_total', 'cause="no-free-id"'),
      goneBeforeTheirTurn: total('ivshmem_refusals_total', 'cause="gone"'),
      evictedForNotReading: total('ivshmem_departures_total', 'cause="not-reading"'),
      evictedAfterMedianMs: median(lifetimes),
      evictedAfterMaxMs: Math.round(lifetimes.at(-1) ?? 0),
      evictedForSending: total('ivshmem_departures_total', 'cause="sent-data"'),
      disconnected: total('ivshmem_departures_total', 'cause="disconnected"'),
      massKills: killed,
      reloads,
      doorbellsRung: rung,
      doorbellsLost: residents.reduce((all, resident) => all + resident.missed, 0),
      peersLost: lost.length,
      reasons: lost,
      fdsBefore: before.fds,
      fdsAfter: server.openFds,
      memoryBeforeMiB: mebibytes(before.memory),
      memoryDuringMiB: memory,
      memoryAfterMiB: mebibytes(server.residentMemory),
      cpuSeconds: Math.round(total('process_cpu_seconds_total')),
    };
    if (json) console.log(JSON.stringify(result));
    else
      for (const [name, value] of Object.entries(result))
        console.log(`${name.padEnd(24)} ${Array.isArray(value) ? value.join(' ') : value}`);
    return lost.length === 0 && result.doorbellsLost === 0 ? 0 : 1;
  } finally {
    attackers?.kill('SIGKILL');
    for (const resident of residents) resident.close();
    await server.stop();
    rmSync(directory, { recursive: true });
  }
}

/** Every resident rings every other one on its link, which must be notified. Returns the number of doorbells. */
function ringAll(residents: readonly Resident[]): number {
  let rung = 0;
  for (const from of residents) {
    for (const to of residents) {
      if (from === to || from.path !== to.path || from.lost !== null || to.lost !== null) continue;
      to.hear();
      from.ring(to.id);
      if (!to.hear()) to.missed++;
      rung++;
    }
  }
  return rung;
}

/** How long clients evicted for not reading had been connected, in ms; filled as they are evicted. */
function evictionTimes(server: ServerProcess): number[] {
  const lifetimes: number[] = [];
  server.follow(({ type, time, cause, since }) => {
    if (type !== 'peer-gone' || cause !== 'not-reading') return;
    lifetimes.push(Number(time) - Date.parse(String(since)));
  });
  return lifetimes;
}

function median(sorted: readonly number[]): number {
  return Math.round(sorted[sorted.length >> 1] ?? 0);
}

async function metric(url: string, name: string): Promise<number> {
  const line = (await (await fetch(url)).text()).split('\n').find((each) => each.startsWith(`${name} `));
  return Number(line?.slice(name.length));
}

function sum(text: string, name: string, label: string): number {
  return text
    .split('\n')
    .filter((line) => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && line.includes(label))
    .reduce((all, line) => all + Number(line.slice(line.lastIndexOf(' '))), 0);
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + 30_000;
  while (!(await condition().catch(() => false))) {
    if (performance.now() > end) throw new Error('the server has not come to rest in 30 s');
    await delay(50);
  }
}

function mebibytes(bytes: number): number {
  return Math.round((bytes / 2 ** 20) * 10) / 10;
}
