import { fstatSync } from 'node:fs';
import { dump } from '../../bytes.ts';
import { expectEqual, expectThat } from '../../check.ts';
import { delay, now } from '../../pace.ts';
import { INIT_FIELDS } from '../message.ts';
import type { ServerCheck, ServerContext } from '../subject.ts';
import { joinPair } from './pair.ts';

const MESSAGES = 'docs/protocol-0x0001.md, section 11';
const SECURITY = 'docs/host-server.md, "Security"';
const RUN = 3;
const READY = 2;

/** What peers see when one of them leaves, and what its successor finds. */
export const departureChecks: readonly ServerCheck[] = [
  {
    id: 'server.departure.announced',
    sentence: 'When a peer leaves, every other client gets PEER_GONE, once.',
    source: MESSAGES,
    level: 'MUST',
    async run(context) {
      const { first, second } = await joinPair(context);
      context.needPeers(3);
      const third = await context.join([0, 1]);
      await first.expectEvents(2);
      await second.expectEvents(2);
      context.journal.note('peer 1 closes its connection');
      second.disconnect();
      await first.expectGone(1);
      await third.expectGone(1);
      // Anything sent twice would come before the eventfds of the next peer.
      await context.join([0, 2]);
      await first.expectEvents(1);
      await third.expectEvents(1);
    },
  },
  {
    id: 'server.departure.state',
    sentence: "A departed peer's entry of the state table is 0 when PEER_GONE arrives.",
    source: MESSAGES,
    level: 'MUST',
    async run(context) {
      const { first, second } = await joinPair(context);
      second.publish(RUN);
      context.journal.note('peer 1 stores state 3, and closes its connection');
      second.disconnect();
      await first.expectGone(1);
      expectEqual('state of peer 1', first.state(1), 0, [dump('state table', first.read(0, 16))]);
    },
  },
  {
    id: 'server.departure.other-states',
    sentence: 'The states of the peers that stay do not change when one leaves.',
    source: 'docs/protocol-0x0001.md, section 3',
    level: 'MUST',
    async run(context) {
      const { first, second } = await joinPair(context);
      first.publish(READY);
      second.disconnect();
      await first.expectGone(1);
      expectEqual('state of peer 0', first.state(0), READY, [dump('state table', first.read(0, 16))]);
    },
  },
  {
    id: 'server.departure.next-state',
    sentence:
      'A new peer finds state 0 in its entry, even if its predecessor has written there after it had left.',
    source: SECURITY,
    level: 'SHOULD',
    async run(context) {
      const { first, second } = await joinPair(context);
      second.disconnect();
      await first.expectGone(1);
      second.publish(RUN);
      const next = await context.join([0]);
      expectEqual('state of the new peer', next.state(next.id), 0, [dump('state table', next.read(0, 16))]);
    },
  },
  {
    id: 'server.departure.lowest-id',
    sentence: 'A new client gets the lowest free ID.',
    source: MESSAGES,
    level: 'MUST',
    async run(context) {
      const { first, second } = await joinPair(context);
      context.needPeers(3);
      const third = await context.join([0, 1]);
      expectEqual('ID of the third client', third.id, 2, [dump('INIT', third.init.bytes)]);
      await first.expectEvents(2);
      second.disconnect();
      await first.expectGone(1);
      const next = await context.connect();
      const init = await next.expectInit();
      expectEqual('ID after that of peer 1 became free:', init.u32(INIT_FIELDS.id), 1, [
        dump('INIT', init.bytes),
      ]);
    },
  },
  {
    id: 'server.departure.new-eventfds',
    sentence: 'A new peer has new eventfds: those of its predecessor do not interrupt it.',
    source: SECURITY,
    level: 'SHOULD',
    async run(context) {
      const { first, second } = await joinPair(context);
      second.disconnect();
      await first.expectGone(1);
      const next = await context.join([0]);
      next.interrupts();
      second.ring(1, 0);
      expectEqual('interrupts of the new peer', next.interrupts()[0], 0);
    },
  },
  {
    id: 'server.departure.section',
    sentence:
      "A new peer's output section is zero, even if its predecessor has written there after it had left.",
    source: SECURITY,
    level: 'SHOULD',
    async run(context) {
      const { first, second } = await joinPair(context);
      const { sectionSize } = second.init;
      const offset = second.sectionOffset(1);
      second.write(offset, new Uint8Array(sectionSize).fill(0x55));
      second.disconnect();
      await first.expectGone(1);
      second.write(offset + sectionSize - 4, Uint8Array.of(1, 2, 3, 4));
      const next = await context.join([0]);
      const bytes = next.read(offset, sectionSize);
      const at = bytes.findIndex((byte) => byte !== 0);
      expectThat(at === -1, 'zeros', `another byte at ${at} of the section`, [
        dump('section', bytes, Math.max(at, 0) & ~15, 16),
      ]);
    },
  },
  {
    id: 'server.departure.others-memory',
    sentence:
      'The sections of the peers that stay, and the read/write section, do not change when a peer is replaced.',
    source: 'docs/protocol-0x0001.md, section 3',
    level: 'MUST',
    async run(context) {
      const { first, second } = await joinPair(context);
      const length = second.sectionOffset(1) - 4096;
      const before = new Uint8Array(length);
      context.random.fill(before);
      first.write(4096, before);
      second.disconnect();
      await first.expectGone(1);
      const next = await context.join([0]);
      const after = next.read(4096, length);
      const at = after.findIndex((byte, i) => byte !== before[i]);
      expectThat(at === -1, 'unchanged memory', `a change at ${4096 + at}`, [
        dump('memory', after, Math.max(at, 0) & ~15, 16),
      ]);
    },
  },
  {
    id: 'server.departure.all',
    sentence: 'When all peers have left, the next one finds the whole memory zero.',
    source: SECURITY,
    level: 'SHOULD',
    async run(context) {
      const { first } = context;
      await first.join([]);
      const { size } = fstatSync(first.memory);
      first.write(0, new Uint8Array(size).fill(0x55));
      first.disconnect();
      const next = await awaitAlone(context);
      const bytes = next.read(0, size);
      const at = bytes.findIndex((byte) => byte !== 0);
      expectThat(at === -1, 'zeros', `another byte at ${at}`, [
        dump('memory', bytes, Math.max(at, 0) & ~15, 16),
      ]);
    },
  },
];

/** A client that gets ID 0, which shows that the last one has left. */
async function awaitAlone({ connect, pace }: ServerContext) {
  const began = now();
  for (;;) {
    const client = await connect();
    const init = await client.expectInit();
    if (init.u32(INIT_FIELDS.id) === 0) return client;
    client.disconnect();
    const isLate = now() - began > pace.limit;
    expectThat(!isLate, 'ID 0, after all clients have left', `ID ${client.id}`);
    await delay(5);
  }
}
