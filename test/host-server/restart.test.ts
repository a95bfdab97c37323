import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { tcpTransfer } from '@ivshmem/traffic';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CheckedClient } from '../support/checked-client.ts';
import { holdings, until } from '../support/processes.ts';
import { describeNetwork } from '../support/requirements.ts';
import { isCarrierOn, Rig } from '../support/rig.ts';
import { SupervisedProgram } from '../support/supervised-program.ts';

// A host server is killed at random moments, and its clients notice nothing.

/** Set IVSHMEM_KILLS for more. */
const KILLS = Number(process.env.IVSHMEM_KILLS ?? 20);
const VECTORS = 2;
const PEERS = 6;

const random = (below: number) => Math.floor(Math.random() * below);

describe('a host server with a descriptor store', () => {
  let directory: string;
  let socket: string;
  let server: SupervisedProgram;
  const clients: CheckedClient[] = [];

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'ivshmem-restart-'));
    socket = join(directory, 'socket');
  });

  afterEach(async () => {
    for (const client of clients.splice(0)) client.close();
    await server.stop();
    // A server that is stopped leaves its socket file to the next one.
    rmSync(socket, { force: true });
    rmSync(join(directory, 'links.json'), { force: true });
    expect(readdirSync(directory)).toEqual([]);
    rmSync(directory, { recursive: true });
  });

  async function start(...argv: string[]): Promise<void> {
    server = new SupervisedProgram(join(directory, 'notify'), ['server', '-F', '--json', ...argv]);
    await server.untilReady(1);
  }

  function join_(path = socket): CheckedClient {
    const client = new CheckedClient(path, VECTORS);
    clients.push(client);
    return client;
  }

  function leave(client: CheckedClient): void {
    client.close();
    clients.splice(clients.indexOf(client), 1);
  }

  /** Waits until all have joined and know each other; the server is in order then. */
  async function settle(expected = clients.length): Promise<void> {
    for (const client of clients) client.resume();
    const ids = () => clients.map(({ id }) => id).sort((a, b) => a - b);
    await until(
      () => clients.every(({ known }) => String(known) === String(ids())) && clients.length === expected,
    );
    expect(clients.flatMap(({ violations }) => violations)).toEqual([]);
    expect(new Set(clients.map(({ memory }) => memory)).size).toBe(1);
    for (const a of clients) for (const b of clients) expect(a.reaches(b)).toBe(true);
  }

  /** Ends the process, and waits until the next one serves. */
  async function restart(signal: NodeJS.Signals): Promise<void> {
    const ready = server.untilReady();
    server.kill(signal);
    await ready;
  }

  it(
    `is killed ${KILLS} times while clients join, leave and do not read`,
    async () => {
      await start('-S', socket, '-n', String(PEERS), '-V', String(VECTORS), '-l', '64K', '-o', '4K');
      const residents = [join_(), join_()];
      await settle();
      const { id, memory } = residents[1]!;
      const before = holdings(server.pid);
      let kills = 0;
      let joins = 0;
      /** Connections that were closed before INIT: see docs/restart.md. */
      let early = 0;
      let working = true;
      const act = async () => {
        while (working) {
          await delay(random(12));
          for (const client of [...clients]) {
            if (!client.hasEnded) continue;
            expect(client.id, 'a client is disconnected that has got INIT').toBe(-1);
            early++;
            leave(client);
          }
          const others = clients.filter((client) => !residents.includes(client));
          const one = others[random(others.length)];
          // So many that none is rejected while the departure of another one is not noticed yet.
          if (clients.length < PEERS - 2 && (one === undefined || random(2) === 0)) {
            join_();
            joins++;
          } else if (one !== undefined && random(3) > 0) {
            leave(one);
            await delay(random(4));
          }
          for (const client of clients) random(4) === 0 ? client.pause() : client.resume();
        }
      };
      const acting = act();
      while (kills < KILLS) {
        server.kill('SIGKILL');
        kills++;
        // Next while it serves, mostly, and sometimes while it begins.
        if (kills % 4 === 3) await delay(random(400));
        else await server.untilReady().then(() => delay(random(150)));
      }
      if (kills % 4 === 3) await server.untilReady();
      working = false;
      await acting;
      for (const client of [...clients]) if (client.hasEnded) leave(client);
      await settle();
      expect(residents.map((client) => [client.hasEnded, client.memory])).toEqual([
        [false, memory],
        [false, memory],
      ]);
      expect(residents[1]!.id).toBe(id);
      for (const client of clients.filter((one) => !residents.includes(one))) leave(client);
      await settle(2);
      // The process before had no more, and nothing is kept of those that have left.
      await until(() => holdings(server.pid).fds <= before.fds);
      expect(server.keeper.kept.length).toBeLessThan(2 * (1 + VECTORS) + 6);
      console.log(`${kills} kills, ${joins} joins, ${early} disconnected before INIT`);
    },
    60_000 + KILLS * 8000,
  );

  it('is restarted in order, and replaced by a version with other settings', async () => {
    await start('-S', socket, '-n', '4', '-V', String(VECTORS));
    join_();
    join_();
    await settle();
    for (let i = 0; i < 3; i++) {
      await restart('SIGTERM');
      if (i === 1) leave(clients[1]!);
      if (i === 1) join_();
      await settle();
    }
    expect(server.output).toContain('continued after a restart: 2 peers still connected');
    server.argv = ['server', '-F', '--json', '-S', socket, '-n', '4', '-V', String(VECTORS + 1)];
    await restart('SIGTERM');
    await until(() => clients.every(({ hasEnded }) => hasEnded));
    expect(server.output).toContain(
      'peers of the process before are disconnected, and get new memory: the stored state is of a server with vectors 2 instead of 3',
    );
    expect(server.keeper.kept.length).toBeLessThan(6);
  });

  it('does not evict a client that was stopped, and sends it what it has missed', async () => {
    await start('-S', socket, '-n', '4', '-V', String(VECTORS));
    const [slow] = [join_(), join_()];
    await settle();
    slow!.pause();
    for (let i = 0; i < 4; i++) {
      const one = join_();
      await until(() => one.known.includes(one.id));
      leave(one);
      await restart('SIGKILL');
    }
    join_();
    await settle(3);
  });

  it('serves a client that was waiting while no process ran', async () => {
    await start('-S', socket, '-n', '2', '-V', String(VECTORS));
    const first = join_();
    join_();
    await settle();
    const ready = server.untilReady();
    server.kill('SIGKILL');
    // Its ID is free, although no process has noticed yet, and it would be the third.
    leave(first);
    join_();
    await ready;
    await settle(2);
  });

  it('continues with the links of a configuration that has changed meanwhile', async () => {
    const config = join(directory, 'links.json');
    const [a, b, c] = ['a', 'b', 'c'].map((name) => join(directory, name));
    const link = { vectors: VECTORS, outputSectionSize: '64K' };
    const write = (...links: object[]) => writeFileSync(config, JSON.stringify({ links }));
    write({ name: 'one', socket: a, ...link }, { name: 'two', socket: b, ...link });
    await start('--config', config);
    const [one, two] = [join_(a), join_(b)];
    await until(() => one.known.length === 1 && two.known.length === 1);
    write({ name: 'one', socket: a, ...link }, { name: 'three', socket: c, ...link });
    await restart('SIGTERM');
    await until(() => two.hasEnded);
    expect(server.output).toContain(`${b} is not configured any more: its peers are disconnected`);
    const three = join_(c);
    await until(() => three.known.length === 1);
    expect([one.hasEnded, readdirSync(directory).sort()]).toEqual([
      false,
      ['a', 'c', 'links.json', 'notify'],
    ]);
    // A reload begins a changed link anew, and forgets the one before.
    write({ name: 'one', socket: a, ...link, maxPeers: 3 }, { name: 'three', socket: c, ...link });
    server.kill('SIGHUP');
    await until(() => one.hasEnded);
    leave(one);
    await until(() => existsSync(a!));
    const again = join_(a);
    await until(() => again.known.length === 1);
    await restart('SIGKILL');
    const late = join_(a);
    await until(() => late.known.length === 2 && again.known.length === 2);
    expect([again.hasEnded, three.hasEnded]).toEqual([false, false]);
    for (const path of [a, c]) rmSync(path!, { force: true });
  });
});

describeNetwork('links whose host server is killed', () => {
  it('move TCP with verified bytes all the time, and log nothing', async () => {
    await using rig = new Rig();
    const options = ['-P', '1', '-V', '2', '-o', '1M', '-l', '4M'];
    const server = new SupervisedProgram(join(rig.directory, 'notify'), [
      'server',
      '-F',
      '-S',
      rig.socket,
      ...options,
    ]);
    try {
      await server.untilReady(1);
      for (const end of [0, 1] as const) rig.startPeer(end);
      await rig.bothUp();
      const from = rig.marks;
      const transfer = tcpTransfer({
        from: rig.namespaces[0].path,
        to: rig.namespaces[1].path,
        address: '10.64.0.2',
        seconds: 10,
        verify: true,
      });
      let isOver = false;
      transfer.finally(() => {
        isOver = true;
      });
      let kills = 0;
      while (!isOver) {
        server.kill('SIGKILL');
        kills++;
        await server.untilReady();
        await delay(random(100));
      }
      expect(await transfer).toMatchObject({ checksumOk: true });
      expect(kills).toBeGreaterThan(1);
      const later = rig.peers.flatMap(({ lines }, end) => lines.slice(from[end]));
      expect(later.filter(({ event }) => event === 'log' || event === 'state')).toEqual([]);
      expect(rig.peers.map(({ lines }) => lines.filter(isCarrierOn).length)).toEqual([1, 1]);
    } finally {
      for (const end of [0, 1] as const) await rig.stopPeer(end).catch(() => {});
      await server.stop();
      rmSync(rig.socket, { force: true });
    }
  }, 90_000);
});
