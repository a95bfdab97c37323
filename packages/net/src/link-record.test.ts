import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { closeFd } from '@ivshmem/linux';
import { createMemfd, StateMemory } from '@ivshmem/linux/memory';
import { DescriptorKeeper, descriptorStoreOf, NotifySocket } from '@ivshmem/linux/process';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { LinkRecord } from './link-record.ts';

const openFds = () => readdirSync('/proc/self/fd').length;

let before: number;
let directory: string;
let notify: NotifySocket;
let keeper: DescriptorKeeper;
let log: string[];
beforeEach(() => {
  before = openFds();
  directory = mkdtempSync('/tmp/ivshmem-record-');
  notify = NotifySocket.listen(join(directory, 'notify'));
  keeper = new DescriptorKeeper(10);
  log = [];
});
afterEach(() => {
  keeper.close();
  notify.close();
  rmSync(directory, { recursive: true });
  expect(openFds()).toBe(before);
});

function names(): string[] {
  for (let message = notify.receive(); message !== null; message = notify.receive()) keeper.handle(message);
  return keeper.kept.map(({ name }) => name);
}

function store() {
  names();
  return descriptorStoreOf({ socket: notify.path, prefix: '', left: keeper.duplicates() });
}

const put = (name: string, fd: number) =>
  descriptorStoreOf({ socket: notify.path, prefix: '', left: [] }).put(name, fd);

const record = () => new LinkRecord(store(), (text) => log.push(text));

it('keeps TAP and state for the next process', () => {
  const first = record();
  expect(first.takeTap()).toBeUndefined();
  expect(names()).toEqual([]);
  // Any file serves.
  const tap = createMemfd('ivshmem-test', 4096);
  first.keep(tap);
  first.mtuSet = true;
  first.close();
  closeFd(tap);
  const second = record();
  expect([second.mtuSet, second.ovsPort]).toEqual([true, false]);
  closeFd(second.takeTap()!);
  expect(second.takeTap()).toBeUndefined();
  second.close();
  expect(names()).toEqual(['state', 'tap']);
  const third = record();
  third.discard();
  expect([third.mtuSet, third.takeTap(), names(), log]).toEqual([false, undefined, [], []]);
  third.close();
});

it('begins anew if the state is missing or unusable', () => {
  const other = StateMemory.create('link', 2, 8);
  put('state', other.fd);
  put('tap', other.fd);
  other.close();
  const first = record();
  expect([first.takeTap(), first.mtuSet, names()]).toEqual([undefined, false, []]);
  expect(log).toEqual([
    'the interface of the process before is not used: the stored state of link has version 2, and this program reads version 1',
  ]);
  first.close();
  put('tap', 0);
  const second = record();
  expect([second.takeTap(), names()]).toEqual([undefined, []]);
  second.close();
});

it('logs a store that fails', () => {
  const first = record();
  notify.close();
  first.keep(0);
  first.discard();
  first.close();
  expect(log).toEqual([
    expect.stringMatching(
      /^a restart will make the interface anew, since the descriptor store failed: connect /,
    ),
  ]);
  notify = NotifySocket.listen(notify.path);
});
