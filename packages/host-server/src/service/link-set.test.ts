import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { closeFd } from '@ivshmem/linux';
import { ServerConnection } from '@ivshmem/transport';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DescriptorBudget } from '../server/descriptor-budget.ts';
import { next, openFds } from '../server/strict-client.test-support.ts';
import { parseConfiguration } from './configuration.ts';
import { LinkSet } from './link-set.ts';

describe('servers of one process', () => {
  let directory: string;
  let before: number;
  let budget: DescriptorBudget;
  let set: LinkSet;
  const connections: ServerConnection[] = [];

  beforeEach(() => {
    directory = mkdtempSync('/tmp/link-set-');
    before = openFds();
    budget = DescriptorBudget.ofProcess();
    set = new LinkSet({ budget });
  });

  afterEach(() => {
    const { left } = DescriptorBudget.ofProcess();
    set.close();
    for (const connection of connections.splice(0)) connection.close();
    expect(readdirSync(directory)).toEqual([]);
    rmSync(directory, { recursive: true });
    // The main poller may have opened its two descriptors meanwhile.
    expect(openFds() - before).toBeLessThanOrEqual(2);
    expect(left).toBeLessThanOrEqual(budget.left);
  });

  const links = (...list: { name: string; [key: string]: unknown }[]) =>
    parseConfiguration(
      JSON.stringify({ links: list.map((link) => ({ socket: join(directory, link.name), ...link })) }),
    );

  /** Receives the next message and closes its descriptor. */
  async function take(connection: ServerConnection): Promise<unknown> {
    const received = await next(connection);
    if (received === 'end') return 'end';
    if (received.fd !== null) closeFd(received.fd);
    return received.message;
  }

  async function join_(name: string): Promise<ServerConnection> {
    const connection = ServerConnection.connect(join(directory, name));
    connections.push(connection);
    expect(await take(connection)).toMatchObject({ type: 'init' });
    return connection;
  }

  const namesOf = (running: LinkSet) => running.links.map(({ configuration }) => configuration.name);

  it('start together, each with its own peers and memory', async () => {
    set.reload(links({ name: 'a', maxPeers: 2 }, { name: 'b', maxPeers: 3, size: '1M' }));
    await join_('a');
    await join_('b');
    await join_('b');
    expect(set.links.map(({ server }) => server.peers.length)).toEqual([1, 2]);
    expect(set.links.map(({ server }) => server.layout.size)).toEqual([4 << 20, 1 << 20]);
    expect(readdirSync(directory)).toEqual(['a', 'b']);
  });

  it('are added and removed by a reload, without effect on the others', async () => {
    set.reload(links({ name: 'kept' }, { name: 'removed' }, { name: 'changed' }));
    const [kept, removed, changed] = [await join_('kept'), await join_('removed'), await join_('changed')];
    // Its own eventfd, the last message.
    await take(kept);
    const left = budget.left;
    const result = set.reload(links({ name: 'changed', vectors: 2 }, { name: 'added' }, { name: 'kept' }));
    expect(result).toEqual({
      added: ['added'],
      removed: ['removed'],
      changed: ['changed'],
      kept: ['kept'],
      failed: new Map(),
    });
    for (const gone of [removed, changed]) {
      await take(gone);
      expect(await take(gone)).toBe('end');
    }
    expect(kept.read()).toBe('wait');
    expect(namesOf(set).sort()).toEqual(['added', 'changed', 'kept']);
    expect(set.links.find(({ configuration }) => configuration.name === 'kept')!.server.peers).toHaveLength(
      1,
    );
    expect((await join_('changed')).fd).toBeGreaterThan(0);
    // The peers of both have released a socket and an eventfd each; the new peer has a socket and two eventfds.
    expect(budget.left).toBe(left + 2 * 2 - 3);
  });

  it('may swap their sockets in one reload', () => {
    const [a, b] = ['a', 'b'].map((name) => join(directory, name));
    set.reload(links({ name: 'x', socket: a }, { name: 'y', socket: b }));
    expect(set.reload(links({ name: 'x', socket: b }, { name: 'y', socket: a })).changed).toEqual(['x', 'y']);
    expect(set.links.map(({ server }) => server.options.socketPath)).toEqual([b, a]);
  });

  it('are retried if they cannot be started, including the first time', () => {
    writeFileSync(join(directory, 'b'), 'no socket');
    const wanted = links({ name: 'a' }, { name: 'b' }, { name: 'c' });
    const { added, kept, failed } = set.reload(wanted);
    expect([added, kept, [...failed.keys()]]).toEqual([['a', 'c'], [], ['b']]);
    expect(failed.get('b')?.reason).toContain('something that is no socket is there');
    expect(set.failed).toBe(failed);
    expect(set.retry()).toMatchObject({ added: [], kept: ['a', 'c'], failed });
    rmSync(join(directory, 'b'));
    expect(set.retry()).toMatchObject({ added: ['b'], kept: ['a', 'c'] });
    expect(set.failed.size).toBe(0);
  });

  it('share one budget of descriptors', async () => {
    const scarce = new DescriptorBudget(100, 100 - 64 - 2 * 5 - 2 * 2);
    const refused: string[] = [];
    const poor = new LinkSet({
      budget: scarce,
      log: (link, event) => event.type === 'refused' && refused.push(`${link}: ${event.cause}`),
    });
    poor.reload(links({ name: 'a', maxPeers: 4 }, { name: 'b', maxPeers: 4 }));
    await join_('a');
    await join_('b');
    const third = ServerConnection.connect(join(directory, 'b'));
    connections.push(third);
    expect(await take(third)).toBe('end');
    expect(refused).toEqual(['b: descriptors']);
    poor.close();
  });
});
